"""Conversation: alpha1 and alpha2 over both doors, tools, scrubbing, faults."""
import threading, time

import grpc
import pytest
from dapr.proto.runtime.v1 import ai_pb2, dapr_pb2_grpc

from conftest import component

ECHO = component("echo", "conversation.echo", [("key", "ignored")])
TOOL = {"function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {"unit": {}, "city": {}}}}}


def converse(d, body, name="echo", version="alpha2", **kw):
    return d.request("POST", f"/v1.0-{version}/conversation/{name}/converse", body, {"content-type": "application/json"}, **kw)


def user(text, **more):
    return {"inputs": [{"messages": [{"ofUser": {"content": [{"text": text}]}}]}], **more}


@pytest.fixture
def echo(daprd):
    return daprd([ECHO])


def test_alpha1(echo):
    r = converse(echo, {"inputs": [{"content": "hi", "role": "system"}, {"content": "me@x.org", "scrubPII": True}], "contextID": "c1",
                        "temperature": 0.5, "parameters": {"a": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "v"}}},
                 version="alpha1")
    assert r.status == 200
    out = r.json()
    assert out["contextID"] == "c1" and out["outputs"][0]["result"] == "hi\n<EMAIL_ADDRESS>"
    assert out["outputs"][0]["parameters"]["a"]["value"] == "v"
    s = dapr_pb2_grpc.DaprStub(grpc.insecure_channel(f"127.0.0.1:{echo.grpc}"))
    out = s.ConverseAlpha1(ai_pb2.ConversationRequest(name="echo", scrubPII=True, inputs=[ai_pb2.ConversationInput(content="from 10.8.9.1")]))
    assert [o.result for o in out.outputs] == ["from <IP>"]


def test_tools(echo):
    out = converse(echo, user("hello", tools=[TOOL], contextId="c2")).json()
    choice = out["outputs"][0]["choices"][0]
    assert out["contextId"] == "c2" and choice["finishReason"] == "tool_calls"
    assert choice["message"] == {"content": "hello", "toolCalls": [{"id": "0", "function": {"name": "weather", "arguments": "city,unit"}}]}
    assert out["outputs"][0]["usage"] == {"completionTokens": "1", "promptTokens": "1", "totalTokens": "2"}
    for choice in ("auto", "none", "required", "weather"):
        assert converse(echo, user("x", tools=[TOOL], toolChoice=choice)).status == 200, choice
    for body in (user("x", tools=[TOOL], toolChoice="Weather"), user("x", toolChoice="required")):
        r = converse(echo, body)
        assert r.status == 400 and r.json()["errorCode"] == "ERR_CONVERSATION_INVALID_PARMS"
        assert r.json()["message"].startswith("failed conversing with component echo: invalid params: tool choice ")
    bad = {"function": {"name": "f", "parameters": {"properties": [1]}}}
    r = converse(echo, user("x", tools=[bad]))
    assert r.status == 500 and r.json() == {"errorCode": "ERR_CONVERSATION_INVOKE", "message":
        "failed conversing with component echo: tool function properties must be a map[string]any, got []interface {}"}


def test_bad_requests(echo):
    cases = [({}, "echo", 400, "ERR_CONVERSATION_MISSING_INPUTS"), (user("x"), "nope", 400, "ERR_CONVERSATION_NOT_FOUND"),
             ("{", "echo", 400, "ERR_MALFORMED_REQUEST"), ({"inputs": [{"messages": [{}]}]}, "echo", 400, "ERR_CONVERSATION_INVALID_PARMS"),
             ({"inputs": [{"messages": [{"ofAssistant": {"toolCalls": [{"id": "1"}]}}]}]}, "echo", 400, "ERR_CONVERSATION_INVALID_PARMS")]
    for body, name, status, code in cases:
        r = converse(echo, body, name)
        assert (r.status, r.json()["errorCode"]) == (status, code), body
    assert converse(echo, {}, version="alpha1").json()["errorCode"] == "ERR_CONVERSATION_MISSING_INPUTS"


def test_long_texts_are_scrubbed_without_stopping_others(echo):
    text = "write to someone@example.com or 10.0.0.1, 12 Main Street. " * 10_000
    done = []
    body = {"inputs": [{"messages": [{"ofUser": {"content": [{"text": text}]}}], "scrubPii": True}]}
    t = threading.Thread(target=lambda: done.append(converse(echo, body, timeout=60)))
    t.start()
    slowest = 0
    while t.is_alive():
        began = time.monotonic()
        assert echo.request("GET", "/v1.0/healthz").status == 204
        slowest = max(slowest, time.monotonic() - began)
    content = done[0].json()["outputs"][0]["choices"][0]["message"]["content"]
    assert content == "write to <EMAIL_ADDRESS> or <IP>, <STREET_ADDRESS> " * 10_000 and slowest < 1


def test_metrics(echo):
    converse(echo, user("x"))
    lines = [x for x in echo.metric_text().splitlines() if x.startswith("dapr_component_conversation_count{")]
    assert any('component="echo"' in x and 'success="true"' in x for x in lines)
