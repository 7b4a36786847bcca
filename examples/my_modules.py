"""A module of one's own. The executor loads it with VALKYR_EXECUTOR__RUNNER__MODULES=examples.my_modules."""

from pydantic import BaseModel

from valkyr import Context, PermanentError, module


class Receipt(BaseModel):
    customer: str
    cents: int


@module("WriteReceipt")
async def write_receipt(context: Context, config: Receipt) -> dict[str, str]:
    if config.cents <= 0:
        raise PermanentError(f"a receipt over {config.cents} cents makes no sense")
    return {"text": f"Thank you, {config.customer}: we took {config.cents / 100:.2f} EUR."}
