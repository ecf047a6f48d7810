"""Drives a fake of Anthropic's API with Anthropic's own SDK.

Called with the fake's address and key. The name of the model that is asked for
says what the fake does. Prints "ok" if all of it came as it should.
"""

import sys

import anthropic
import httpx

TOOLS = [
    {
        "name": "execute",
        "description": "Runs a command.",
        "input_schema": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    }
]
GO = {"role": "user", "content": "go"}

base_url, key = sys.argv[1:]
client = anthropic.Anthropic(base_url=base_url, api_key=key, max_retries=2)


def stream(model, messages=[GO], client=client, **more):
    return client.messages.stream(model=model, max_tokens=100, messages=messages, **more)


def fails(kind, says, call):
    try:
        call()
    except kind as error:
        assert says in str(error), error
        return error
    raise AssertionError(f"no {kind}")


def text():
    with stream("text") as answer:
        pieces = list(answer.text_stream)
        message = answer.get_final_message()
    assert "".join(pieces) == "Zażółć gęślą jaźń 🦀, said the fake.", pieces
    assert len(pieces) > 2, pieces
    assert message.stop_reason == "end_turn", message
    assert message.usage.input_tokens == 10, message.usage
    assert message.usage.cache_read_input_tokens == 20, message.usage
    assert message.usage.cache_creation_input_tokens == 30, message.usage
    assert message.usage.output_tokens == 7, message.usage


def in_tiny_pieces():
    with stream("slowly") as answer:
        assert answer.get_final_text() == "Zażółć gęślą jaźń 🦀"


def at_once():
    message = client.messages.create(model="text", max_tokens=100, messages=[GO])
    assert message.content[0].text.startswith("Zażółć"), message


def tools():
    with stream("tools", tools=TOOLS) as answer:
        kinds = [event.type for event in answer]
        message = answer.get_final_message()
    assert "input_json" in kinds, kinds
    assert message.stop_reason == "tool_use", message
    thinking, said, *calls = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "Hm."), thinking
    assert said.text == "I look.", said
    assert [call.input for call in calls] == [{"command": "ls"}, {"command": "pwd"}], calls
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"result {at}"}
        for at, call in enumerate(calls)
    ]
    conversation = [
        GO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    with stream("tools", conversation, tools=TOOLS) as answer:
        assert answer.get_final_text() == "result 0, result 1"
    # Half of the results, results of nothing, and thoughts that were changed.
    bad = anthropic.BadRequestError
    conversation[2] = {"role": "user", "content": results[:1]}
    fails(bad, "without `tool_result`", lambda: run("tools", conversation))
    conversation[1] = {"role": "assistant", "content": "nothing called"}
    fails(bad, "unexpected `tool_use_id`", lambda: run("tools", conversation))
    changed = [thinking.model_copy(update={"signature": "another"}), said]
    conversation[1:] = [{"role": "assistant", "content": changed}, GO]
    fails(bad, "Invalid `signature`", lambda: run("tools", conversation))


def run(model, messages=[GO], client=client):
    with stream(model, messages, client) as answer:
        return answer.get_final_text()


def errors():
    assert run("limited") == "after a wait"
    patient = client.with_options(max_retries=0)
    error = fails(anthropic.RateLimitError, "rate limit", lambda: run("always-limited", client=patient))
    assert error.response.headers["retry-after"] == "7", error.response.headers
    stranger = anthropic.Anthropic(base_url=base_url, api_key="wrong", max_retries=0)
    fails(anthropic.AuthenticationError, "invalid x-api-key", lambda: run("text", client=stranger))
    fails(anthropic.NotFoundError, "model: missing", lambda: run("missing"))
    fails(anthropic.APIStatusError, "overloaded_error", lambda: run("overloaded-in-between"))
    cut = (httpx.TransportError, anthropic.APIConnectionError)
    fails(cut, "", lambda: run("cut"))


for check in (text, in_tiny_pieces, at_once, tools, errors):
    check()
print("ok")
