"""Hosts with odd primary keys."""

from __future__ import annotations

import uuid

from tests.foreign import models
from tests.foreign.oddity import (
    ADMIN_STEPS,
    CREATING,
    LATER,
    OVERRIDING,
    SOMETHING,
    Oddity,
    steps,
    steps_but,
    steps_on,
)

_NEEDING_ROWS = (*CREATING, *OVERRIDING, *LATER, "admin_list", "api_list_of_an_agent")

_TOO_LONG = "no row takes a key above 64 characters"

KEYS = (
    Oddity(name="plain", model=models.Plain),
    Oddity(name="small_key", model=models.SmallKey),
    Oddity(name="uuid_key", model=models.UuidKey),
    Oddity(
        name="uuid_key_given_as_text",
        model=models.UuidKey,
        row=lambda number: {"id": str(uuid.uuid4())},
    ),
    Oddity(
        name="uuid_key_given_as_hex",
        model=models.UuidKey,
        row=lambda number: {"id": uuid.uuid4().hex.upper()},
        fails=steps_but(
            "rows are kept under the text that was given, and not under the key",
            *("override_in_code", "override_in_the_admin", "override_by_the_hosts_own_save"),
            *("backfill", "classify_again_in_the_admin", "api_list", "check"),
        ),
    ),
    Oddity(
        name="number_key_given_as_text",
        model=models.SmallKey,
        row=lambda number: {"id": f"00{number}"},
        in_time=False,
    ),
    Oddity(
        name="long_key",
        model=models.LongKey,
        row=lambda number: {"message_id": f"<{'long' * 30}.{number}@mail.example>"},
        in_time=False,
        fails=steps("a filter takes no key above 64 characters", "api_list")
        | steps_on("postgresql", _TOO_LONG, *_NEEDING_ROWS)
        | steps_on("mysql", _TOO_LONG, *_NEEDING_ROWS),
    ),
    Oddity(
        name="key_with_a_slash",
        model=models.TextKey,
        row=lambda number: {"number": f"2026/{number}"},
        in_time=False,
        fails=steps("an address ends at the slash", "override_by_the_api"),
    ),
    Oddity(
        name="key_with_odd_characters",
        model=models.TextKey,
        row=lambda number: {"number": f"%2F_5F?# ü😀{number}"},
        in_time=False,
    ),
    Oddity(
        name="keys_that_differ_in_case",
        model=models.CaseSensitiveKey,
        row=lambda number: {"code": ("aB1", "ab1", "AB1", "Ab1")[number - 1]},
        in_time=False,
        fails=steps_on(
            "mysql",
            "rows are found under a key of another case",
            *("create_async", "backfill", "erase", "delete"),
            *("admin_list", "api_list", "api_list_of_an_agent"),
        ),
    ),
    Oddity(
        name="key_of_another_collation",
        model=models.CollatedKey,
        row=lambda number: {"code": f"A{number}"},
        in_time=False,
        fails=steps_on(
            "mysql",
            "the key's collation is not that of the rows about it",
            *("train_labels", "admin_list"),
        ),
    ),
    Oddity(
        name="hashid_key",
        model=models.HashIdKey,
        fails=steps("keys are compared in a form that the column does not hold", "admin_list"),
    ),
    Oddity(
        name="composite_key",
        model=models.CompositeKey,
        row=lambda number: {"tenant": 1, "number": number},
        in_time=False,
        checks=(SOMETHING,),
        without=steps("the admin takes no composite key", *ADMIN_STEPS),
        fails=steps_but(
            "the key cannot be read again from its text",
            *("create_switched_off", "create_without_a_model", "backfill"),
            *ADMIN_STEPS,
        ),
    ),
    Oddity(
        name="one_to_one_key",
        model=models.OneToOneKey,
        row=lambda number: {"basis": models.Basis.objects.create(body="")},
    ),
    Oddity(
        name="key_that_is_a_key_to_a_uuid",
        model=models.KeyToUuid,
        row=lambda number: {"case": models.UuidKey.objects.create(body="")},
    ),
)
