from __future__ import annotations

import uuid
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True, max_length=100)

    USERNAME_FIELD: ClassVar[str] = "email"

    objects: ClassVar[BaseUserManager] = BaseUserManager()  # type: ignore[type-arg]
