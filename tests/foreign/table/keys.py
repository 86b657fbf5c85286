"""Hosts with odd primary keys."""

from __future__ import annotations

import uuid

from tests.foreign import models
from tests.foreign.oddity import (
    ADMIN_STEPS,
    Oddity,
    steps,
)

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
    ),
    Oddity(
        name="key_with_a_slash",
        model=models.TextKey,
        row=lambda number: {"number": f"2026/{number}"},
        in_time=False,
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
    ),
    Oddity(
        name="key_of_another_collation",
        model=models.CollatedKey,
        row=lambda number: {"code": f"A{number}"},
        in_time=False,
    ),
    Oddity(
        name="hashid_key",
        model=models.HashIdKey,
    ),
    Oddity(
        name="composite_key",
        model=models.CompositeKey,
        row=lambda number: {"tenant": 1, "number": number},
        in_time=False,
        without=steps("the admin takes no composite key", *ADMIN_STEPS),
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
