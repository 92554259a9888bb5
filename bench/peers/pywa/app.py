"""pywa on FastAPI, one process per core: verifies a webhook, hands it to the bot and answers. Stores nothing."""

import os

import fastapi
import pywa

app = fastapi.FastAPI()


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}


whatsapp = pywa.WhatsApp(
    phone_id="1000",
    token="bench-access-token",
    server=app,
    webhook_endpoint="/webhooks/meta/main",
    app_secret=os.environ["APP_SECRET"],
    verify_token="bench-verify-token",
    filter_updates=False,
)


@whatsapp.on_message
def receive(_: pywa.WhatsApp, message: pywa.types.Message) -> None:
    """A bot that does nothing yet."""
