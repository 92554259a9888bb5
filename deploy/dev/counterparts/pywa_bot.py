"""An existing bot to put behind the relay: pywa, FastAPI and uvicorn, unmodified.

Verifies Meta's signature over the raw body (422 without one, 403 for a wrong one) and answers every text
message with "You said: ..." through the Graph API at --graph-url. Webhooks go to POST / (GET / verifies).
Ready when a line says "pywa bot is listening on http://127.0.0.1:PORT".
"""

import argparse
import logging
import socket

import fastapi
import pywa
import uvicorn
from pywa import filters


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A pywa bot that repeats what it is told.")
    parser.add_argument("--graph-url", required=True, help="Graph base URL with its version: http://127.0.0.1:8082/v26.0")
    parser.add_argument("--phone-number-id", required=True)
    parser.add_argument("--app-secret", required=True)
    parser.add_argument("--token", default="test-token")
    parser.add_argument("--verify-token", default="test-verify-token")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    app = fastapi.FastAPI()
    whatsapp = pywa.WhatsApp(
        phone_id=options.phone_number_id,
        token=options.token,
        server=app,
        app_secret=options.app_secret,
        verify_token=options.verify_token,
    )
    # pywa has no option for the Graph host; this is the only thing changed, and only from outside.
    whatsapp.api._session.base_url = options.graph_url

    @whatsapp.on_message(filters.text)
    def repeat(_: pywa.WhatsApp, message: pywa.types.Message) -> None:
        message.reply(f"You said: {message.text}")

    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    # The socket already queues connections, so this is true before the first one is accepted.
    print(f"pywa bot is listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
