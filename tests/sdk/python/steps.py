"""What an app of the Python SDK does at its sidecar, the same for both kinds of apps. Prints a line for each thing that worked."""
import json, os, queue, subprocess, time, warnings

from dapr.clients import DaprClient
from dapr.clients.grpc._crypto import DecryptOptions, EncryptOptions
from dapr.clients.grpc._response import TopicEventResponse, UnlockResponseStatus
from dapr.clients.grpc.conversation import (ConversationInputAlpha2, ConversationMessage, ConversationMessageContent,
                                            ConversationMessageOfUser)

warnings.simplefilter("ignore")
got = queue.Queue()


def expect(where, data, timeout=20):
    """Waits for got.put((where, data)); other things may come before."""
    end, others = time.monotonic() + timeout, []
    while True:
        try:
            seen = got.get(timeout=max(0.01, end - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"{where} {data!r} did not come; came: {others}") from None
        if seen == (where, data):
            return
        others.append(seen)


def done(step):
    print("OK", step, flush=True)


def events(c):
    c.publish_event("pub", "programmatic", json.dumps({"n": 1}), data_content_type="application/json")
    expect("programmatic", {"n": 1})
    done("publish, programmatic subscription")
    c.publish_event("pub", "declared", "text", data_content_type="text/plain")
    expect("declared", "text")
    done("declarative subscription")
    assert not c.publish_events("pub", "programmatic", [json.dumps({"n": i}) for i in range(20, 25)], data_content_type="application/json").failed_entries
    for _ in range(5):
        assert got.get(timeout=20)[0] == "programmatic"
    done("bulk publish")


def streams(c):
    s = c.subscribe("pub", "streamed")
    c.publish_event("pub", "streamed", json.dumps({"s": 1}), data_content_type="application/json")
    m = s.next_message()
    assert m.data() == {"s": 1} and m.topic() == "streamed"
    s.respond_success(m)
    s.close()

    def handler(message):
        got.put(("handler", message.data()))
        return TopicEventResponse("success")
    close = c.subscribe_with_handler("pub", "handled", handler)
    c.publish_event("pub", "handled", json.dumps({"h": 2}), data_content_type="application/json")
    expect("handler", {"h": 2})
    close()
    done("streaming subscription")


def bindings(c):
    expect("tick", None)
    c.invoke_binding("files", "create", "kept!", {"fileName": "a.txt"})
    read = c.invoke_binding("files", "get", "", {"fileName": "a.txt"}).data
    assert read == b"kept!", read
    done("bindings")


def configuration(c):
    def redis(*words):
        subprocess.run(["redis-cli", "-p", os.environ["REDIS_PORT"], *words], check=True, stdout=subprocess.DEVNULL)
    redis("SET", "color", "red||1")
    assert c.get_configuration("cfg", ["color"]).items["color"].value == "red"
    id = c.subscribe_configuration("cfg", ["color"], lambda id, r: got.put(("color", r.items["color"].value if "color" in r.items else None)))
    redis("SET", "color", "blue||2")
    expect("color", "blue")
    assert c.unsubscribe_configuration("cfg", id)
    done("configuration")


def others(c):
    with c.try_lock("locks", "r", "me", 30) as held:
        assert held.success and not c.try_lock("locks", "r", "you", 30).success
    assert c.unlock("locks", "r", "me").status == UnlockResponseStatus.lock_does_not_exist
    done("lock")
    text = os.urandom(300_000)
    secret = c.encrypt(text, EncryptOptions(component_name="vault", key_name="aes256", key_wrap_algorithm="AES")).read()
    assert secret.startswith(b"dapr.io/enc/v1\n") and text not in secret
    assert c.decrypt(secret, DecryptOptions(component_name="vault", key_name="aes256")).read() == text
    done("crypto")
    user = ConversationMessage(of_user=ConversationMessageOfUser(content=[ConversationMessageContent(text="hello")]))
    r = c.converse_alpha2("echo", [ConversationInputAlpha2(messages=[user])])
    assert r.outputs[0].choices[0].message.content == "hello"
    done("conversation")


def run():
    with DaprClient() as c:
        c.wait(20)
        for step in (events, streams, bindings, configuration, others):
            step(c)
