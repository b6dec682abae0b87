"""Conversation: alpha1 and alpha2 over both doors, tools, scrubbing, faults; providers against a server of the test's own."""
import http.server, json, threading, time

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


# ---- providers ----

class Model:
    """Answers chat completions with `answer`: a document, or (status, bytes), or a function of the request."""

    def __init__(self):
        model, self.seen, self.answer = self, [], None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.seen.append((self.path, dict(self.headers), body))
                a = model.answer(body) if callable(model.answer) else model.answer
                status, data = a if isinstance(a, tuple) else (200, json.dumps(a).encode())
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *a):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def model():
    m = Model()
    m.answer = {"model": "m-1", "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2},
                          "completion_tokens_details": {"reasoning_tokens": 1}}}
    yield m
    m.server.shutdown()
    m.server.server_close()


def openai(model, *metadata):
    return component("ai", "conversation.openai", [("key", "sk-1"), ("endpoint", model.url + "/v1/"), ("model", "gpt-4.1"), *metadata])


def test_openai(daprd, model):
    d = daprd([openai(model)])
    schema = {"type": "object", "name": "answer", "strict": True, "properties": {"a": {"type": "string"}}}
    text = lambda kind, *texts, **more: {kind: {"content": [{"text": t} for t in texts], **more}}
    calls = [{"id": "c1", "function": {"name": "weather", "arguments": "{}"}}]
    r = converse(d, {"inputs": [{"messages": [text("ofSystem", "be kind"), text("ofDeveloper", "dev"), text("ofUser", "one", "two"),
                                              text("ofAssistant", toolCalls=calls), text("ofTool", "sunny", toolId="c1", name="weather")]}],
                     "temperature": 0.5, "tools": [TOOL], "toolChoice": "weather", "responseFormat": schema, "metadata": {"team": "x"},
                     "promptCacheRetention": "86400s"}, "ai")
    assert r.status == 200, r.body
    assert r.json() == {"outputs": [{"choices": [{"finishReason": "stop", "message": {"content": "hello"}}], "model": "m-1", "usage": {
        "completionTokens": "4", "promptTokens": "3", "totalTokens": "7", "completionTokensDetails": {"reasoningTokens": "1"},
        "promptTokensDetails": {"cachedTokens": "2"}}}]}
    path, headers, body = model.seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sk-1"
    assert body["model"] == "gpt-4.1" and body["temperature"] == 0.5
    assert body["messages"] == [
        {"role": "system", "content": "be kind"}, {"role": "user", "content": "dev"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"}]
    assert body["tools"] == [{"type": "function", "function": TOOL["function"]}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["response_format"] == {"type": "json_schema", "json_schema": {
        "name": "answer", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    assert body["metadata"] == {"team": "x", "prompt_cache_retention": "24h0m0s"}


def test_openai_tool_calls_and_choices(daprd, model):
    d = daprd([openai(model)])
    call = {"id": "c9", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}}
    model.answer = {"choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [call]}},
                                {"message": {"content": "write a@b.co"}}]}
    out = converse(d, user("x", tools=[TOOL], scrubPii=True), "ai").json()["outputs"]
    assert out[0]["choices"] == [{"finishReason": "tool_calls", "message": {"toolCalls": [
        {"id": "c9", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}}]}}]
    assert out[1]["choices"] == [{"finishReason": "unknown", "index": "1", "message": {"content": "write <EMAIL_ADDRESS>"}}]
    model.answer = {"choices": [{"message": {"content": ""}}]}
    r = converse(d, user("x", tools=[TOOL], toolChoice="required"), "ai")
    assert r.status == 500 and "no tool calls despite 1 tools" in r.json()["message"]


def test_openai_faults(daprd, model):
    d = daprd([openai(model), component("down", "conversation.openai", [("key", "k"), ("endpoint", "http://127.0.0.1:1/v1")])])
    cases = [((401, b'{"error":{"message":"bad key"}}'), "API returned unexpected status code: 401: bad key"),
             ((500, b"oops"), "API returned unexpected status code: 500"), ((200, b"{"), "not valid JSON"), ((200, b"[]"), "no JSON object"),
             ({"choices": []}, "empty response"), ({"choices": 7, "usage": "x", "model": {}}, "empty response"), ((None, b""), "network error")]
    for answer, text in cases:
        model.answer = answer
        r = converse(d, user("x"), "ai")
        assert r.status == 500 and text in r.json()["message"] and "sk-1" not in r.json()["message"], answer
    assert "network error: failed to reach API server" in converse(d, user("x"), "down").json()["message"]
    assert "sk-1" not in d.log()


def test_openai_cache_and_models(daprd, model):
    d = daprd([openai(model, ("cacheTTL", "1m"))])
    for _ in range(3):
        assert converse(d, user("same"), "ai").json()["outputs"][0]["choices"][0]["message"]["content"] == "hello"
    converse(d, user("other"), "ai")
    assert len(model.seen) == 2
    o1 = component("o1", "conversation.openai", [("key", "k"), ("endpoint", model.url), ("model", "o1")])
    az = component("az", "conversation.openai", [("key", "k"), ("endpoint", model.url), ("model", "g"), ("apiType", "azure"), ("apiVersion", "v9")])
    ol = component("ol", "conversation.ollama", [("endpoint", model.url + "/v1")])
    d = daprd([o1, az, ol])
    body = {"inputs": [{"messages": [{"ofSystem": {"content": [{"text": "sys"}]}}, {"ofUser": {"content": [{"text": "hi"}]}}]}]}
    for name in ("o1", "az", "ol"):
        assert converse(d, body, name).status == 200
    (_, _, first), (azure, headers, _), (path, _, last) = model.seen[2:]
    assert first["messages"] == [{"role": "user", "content": [{"type": "text", "text": "sys\n\n"}, {"type": "text", "text": "hi"}]}]
    assert azure == "/openai/deployments/g/chat/completions?api-version=v9" and headers["api-key"] == "k"
    assert path == "/v1/chat/completions" and last["model"] == "llama3.2:latest"


def test_a_slow_model_holds_up_nobody(daprd, model):
    d = daprd([openai(model)])
    gate = threading.Event()
    fast = dict(model.answer)
    model.answer = lambda body: (gate.wait(10), fast)[1] if body["messages"][0]["content"] == "slow" else fast
    done = []
    t = threading.Thread(target=lambda: done.append(converse(d, user("slow"), "ai").status))
    t.start()
    for _ in range(5):
        assert converse(d, user("quick"), "ai").status == 200
    assert not done
    gate.set()
    t.join()
    assert done == [200]


def test_openai_needs_a_key(daprd, model):
    d = daprd([component("az", "conversation.openai", [("key", "k"), ("apiType", "azure")], ignoreErrors=True)])
    assert "endpoint and apiVersion must be provided when apiType is set to 'azure'" in d.log()
    assert converse(d, user("x"), "az").json()["errorCode"] == "ERR_CONVERSATION_NOT_FOUND"


def test_a_server_that_is_not_named_may_be_asked(daprd):
    """Without an endpoint the plugin's own address counts: its walls have a door there."""
    d = daprd(resources=[component("ol", "conversation.ollama")])
    r = d.request("POST", "/v1.0-alpha2/conversation/ol/converse", json.dumps({"inputs": [{"messages": [{"ofUser": {"content": [{"text": "hi"}]}}]}]}),
                  {"content-type": "application/json"})
    assert r.status in (200, 500), r.body
    assert "does not ask for" not in d.log()
