"""Each check of the conformance kit's kinds fails for a component that breaks its promise, and none for one that keeps them all."""
import concurrent.futures, subprocess

import pytest

from conftest import BUILD, ROOT
from test_ctl import home  # noqa: F401 (a fixture)
from test_kit import kit

CHANGE = 'echo "$KEY $VALUE" >> {file}'
ARGS = {  # what the kit needs to know of each kind
    "configuration.wrong": ["-m", "file={file}", "--change", CHANGE], "bindings.wrong": ["--operation-metadata", "key=a"],
    "crypto.wrong": ["--key", "key-1", "--key", "key-2"], "secretstores.wrong": ["--secret", "known=abcd"], "pubsub.wrong": ["--ordered"]}
GOOD = ["middleware.heads", "middleware.bodies", "nameresolution.wrong", "bindings.wrong", "configuration.wrong", "lock.wrong", "crypto.wrong",
        "conversation.wrong", "secretstores.wrong", "pubsub.wrong"]
WRONG = [  # type, how, the check that finds it
    ("middleware.heads", "status", "requests are decided"), ("middleware.heads", "header", "requests are decided"),
    ("middleware.heads", "odd", "odd requests are decided"), ("middleware.bodies", "pieces", "how a body is cut makes no difference"),
    ("middleware.bodies", "big", "bodies of 2 MiB pass both ways"), ("middleware.bodies", "alone", "32 requests at once, 4 silent ones beside them"),
    ("nameresolution.wrong", "port", "its own sidecar is found"), ("nameresolution.wrong", "address", "its own sidecar is found"),
    ("nameresolution.wrong", "keeps", "another sidecar takes its place"), ("nameresolution.wrong", "silent", "an app that nobody knows"),
    ("nameresolution.wrong", "dies", "odd names are no harm"),
    ("bindings.wrong", "cut", "what is created is got and deleted"), ("bindings.wrong", "kept", "what is created is got and deleted"),
    ("bindings.wrong", "unread", "what is created is read, again after a failure"), ("bindings.wrong", "other", "what is created is read, again after a failure"),
    ("bindings.wrong", "touchy", "events are read and answered"),
    ("configuration.wrong", "late", "three subscriptions stand and end"), ("configuration.wrong", "ghost", "single, missing and all items"),
    ("configuration.wrong", "deaf", "changes are seen until one unsubscribes"), ("configuration.wrong", "all", "changes are seen until one unsubscribes"),
    ("configuration.wrong", "stale", "changes are seen until one unsubscribes"),
    ("lock.wrong", "both", "one owner at a time"), ("lock.wrong", "thief", "one owner at a time"), ("lock.wrong", "ever", "locks expire"),
    ("crypto.wrong", "plain", "what is encrypted is decrypted"), ("crypto.wrong", "wrong", "what is encrypted is decrypted"),
    ("crypto.wrong", "untagged", "what is encrypted is decrypted"), ("crypto.wrong", "anykey", "another key opens nothing"),
    ("crypto.wrong", "trusting", "signatures hold"), ("crypto.wrong", "private", "public parts are public"),
    ("crypto.wrong", "missing", "a key that is not there"), ("crypto.wrong", "lenient", "an unknown algorithm"),
    ("conversation.wrong", "mute", "messages of all roles are answered"), ("conversation.wrong", "endless", "messages of all roles are answered"),
    ("conversation.wrong", "rogue", "tools may be offered"),
    ("secretstores.wrong", "two-faced", "bulk and single agree"), ("secretstores.wrong", "generous", "a secret that is not there"),
    ("pubsub.wrong", "lossy", "ten messages arrive as they were"), ("pubsub.wrong", "bytes", "ten messages arrive as they were"),
    ("pubsub.wrong", "backwards", "ten messages arrive as they were"), ("pubsub.wrong", "topic", "ten messages arrive as they were"),
    ("pubsub.wrong", "cut", "messages of 256 KiB"), ("pubsub.wrong", "mixes", "five topics are apart"), ("pubsub.wrong", "half", "bulk publish"),
    ("pubsub.wrong", "other", "messages that failed come again"),
    ("pubsub.boaster", "", "patterns of topics"), ("pubsub.boaster", "", "messages expire"),
    ("state.modest", "", "ETags that are not declared"), ("state.proud", "", "TTL"), ("state.proud", "", "queries find, sort and page"),
    ("state.proud", "", "keys by pattern"), ("state.proud", "", "transactions set and delete"), ("state.proud", "", "bulk set, get, delete")]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    d = tmp_path_factory.mktemp("wrong") / "wrong"
    d.mkdir()
    sanitize = ["-fsanitize=address,undefined"] if BUILD.name == "asan" else []
    subprocess.run(["gcc", "-std=gnu17", "-O1", "-Wall", "-Werror", f"-I{BUILD}/include", *sanitize, "-o", d / "wrong",
                    ROOT / "tests/conformance/wrong_kinds.c", BUILD / "lib/libdapr-plugin.a", "-lm", "-lpthread"], check=True)
    types = sorted({t for t, _, _ in WRONG} | set(GOOD))
    (d / "plugin.yaml").write_text("name: wrong\nversion: 1.0.0\nexecutable: wrong\nvolatile: true\ncontract: [1]\ntypes:\n"
                                   + "".join(f"  - type: {t}\n    versions: [v1]\n" for t in types))
    return d


def run_one(env, wrong, folder, kind, how, *more, ok):
    f = folder / f"{kind}-{how}"
    return kit(env, wrong, "--type", kind, "-m", f"how={how}", "--no-faults", "--timeout", "3s" if ok else "1s", *(a.format(file=f) for a in ARGS.get(kind, [])), *more, ok=ok)[1]


def test_small_components_that_are_right_pass(home, folder, wrong):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for kind, checks in zip(GOOD, pool.map(lambda k: run_one(home, wrong, folder, k, "", ok=True), GOOD)):
            own = [c for c in checks.values() if c["group"] == kind.split(".")[0]]
            assert len(own) > 1 and all(c["result"] == "pass" for c in own if "HTTP_EXCHANGE" not in c.get("detail", "") and "TTL" not in c.get("detail", "")
                                        and "SUBSCRIBE_WILDCARDS" not in c.get("detail", "")), own


def test_each_broken_promise_is_found(home, folder, wrong):
    runs = sorted({(t, h) for t, h, _ in WRONG})
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = dict(zip(runs, pool.map(lambda r: run_one(home, wrong, folder, *r, ok=False), runs)))
    missed = [(t, h, c, found[t, h].get(c)) for t, h, c in WRONG if found[t, h].get(c, {}).get("result") != "fail"]
    assert not missed, missed
