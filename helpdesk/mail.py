"""E-mail to requesters."""

from __future__ import annotations

import logging
from smtplib import SMTPException

from django.core.mail import EmailMessage

from helpdesk.models import Comment

logger = logging.getLogger(__name__)


def send_reply(comment: Comment) -> bool:
    """Send a reply to the requester; False when there is no address or the mail did not go out."""
    ticket = comment.ticket
    if comment.is_internal or not ticket.requester:
        return False
    subject = " ".join(ticket.subject.split())
    message = EmailMessage(
        subject=f"[#{ticket.pk}] {subject}", body=comment.body, to=[ticket.requester]
    )
    try:
        return message.send() == 1
    except (SMTPException, OSError):
        logger.exception("The reply to ticket %s was not sent", ticket.pk)
        return False
