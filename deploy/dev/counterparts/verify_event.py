"""Verifies one event as a customer would, with the reference library of Standard Webhooks.

Reads {"secret": "whsec_...", "headers": {...}, "body": "..."} on standard input. Exits 0 and prints the
event when its signature and timestamp are good, exits 1 and prints the reason when they are not.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def main() -> int:
    given = json.load(sys.stdin)
    try:
        event = Webhook(given["secret"]).verify(given["body"], given["headers"])
    except WebhookVerificationError as reason:
        print(f"refused: {reason}")
        return 1
    print(json.dumps(event))
    return 0


if __name__ == "__main__":
    sys.exit(main())
