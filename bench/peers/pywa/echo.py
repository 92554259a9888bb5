"""pywa on FastAPI, one process per core: verifies a webhook and answers its message by the Graph API. Stores nothing."""

import os

import fastapi
from pywa_async import WhatsApp, types

app = fastapi.FastAPI()


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}


whatsapp = WhatsApp(
    phone_id="10600000000",
    token="bench-access-token",
    server=app,
    webhook_endpoint="/webhooks/meta/main",
    app_secret=os.environ["APP_SECRET"],
    verify_token="bench-verify-token",
    filter_updates=False,
)
# pywa has no option for the Graph host; this is the only thing changed, and only from outside.
whatsapp.api._session.base_url = f"http://{os.environ['GRAPH_HOST']}/v26.0"


@whatsapp.on_message
async def answer(_: WhatsApp, message: types.Message) -> None:
    await message.reply(f"You said: {message.text}")
