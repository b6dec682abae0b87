"""Signed indexes: who vouches for what there is, for how long, and that nobody sets it back; carried on by mirrors, bundles and layouts."""
import json, pathlib, shutil, subprocess, tarfile

import pytest

from test_ctl import home  # noqa: F401 (a fixture)
from test_packages import installed, keys, packed, run, shop, work  # noqa: F401 (fixtures)


@pytest.fixture
def signed(home, work, shop):
    """The shop with a signed index; its owner's commands, and a fresh user's environment who trusts the key."""
    def sign(*args, code=0):
        return run(home, work, "index", "sign", str(shop.folder), "--key", f"{work}/plugin.key", "--name", "shop.example", *args, code=code)
    sign()
    return sign


def files(folder):
    return (folder / "index.json").read_bytes(), (folder / "index.json.minisig").read_bytes()


def put(folder, pair):
    (folder / "index.json").write_bytes(pair[0])
    (folder / "index.json.minisig").write_bytes(pair[1])


def issued(folder):
    return json.loads((folder / "index.json").read_text())["issued"]


def test_a_signed_index_is_used_and_must_stay_signed(home, work, shop, signed):
    url, place = shop(), shop.folder
    d = json.loads((place / "index.json").read_text())
    assert d["name"] == "shop.example" and d["issued"] < d["expires"] and len(d["plugins"]) == 3
    assert "Installed state.mine 1.1.0" in run(home, work, "install", "state.mine", "--index", url)
    run(home, work, "remove", "state.mine")
    pair = files(place)

    for bad in (pair[0].replace(b'"1.1.0"', b'"1.1.9"'), pair[0][:-9], pair[0] + b" ", b""):
        put(place, (bad, pair[1]))
        text = run(home, work, "install", "state.mine", "--index", url, code=1)
        assert "was changed after signing" in text or "no JSON" in text, text
    for bad in (pair[1][:60], b"nonsense\n", b"", pair[1].replace(b"issued:", b"issued:9")):
        put(place, (pair[0], bad))
        text = run(home, work, "install", "state.mine", "--index", url, code=1)
        assert "no minisign signature" in text or "was changed after signing" in text, text

    (place / "index.json.minisig").unlink()
    (place / "index.json").write_bytes(pair[0])
    text = run(home, work, "install", "state.mine", "--index", url, code=1)
    assert "its signature was taken away. If its owner did that: rm " in text
    assert "its signature was taken away" in run(home, work, "search", "--index", url, code=1)
    pathlib.Path(text.split(": rm ")[1].strip()).unlink()
    run(home, work, "search", "--index", url)
    assert not installed(home)


def test_an_index_is_not_set_back_wherever_it_stands(home, work, shop, signed, folder):
    url, place = shop(), shop.folder
    old = files(place)
    run(home, work, "search", "--index", url)
    first = issued(place)
    assert issued(place) == first
    signed()  # within the same second: the time goes on all the same
    assert issued(place) > first
    run(home, work, "search", "--index", url)
    new = files(place)
    put(place, old)
    assert f"was issued {first}, but one of " in run(home, work, "install", "state.mine", "--index", url, code=1)
    mirror = folder / "mirror"
    shutil.copytree(place, mirror)
    assert "it was set back" in run(home, work, "search", "--index", str(mirror), code=1)
    assert "Installed state.mine" in run(home, work, "install", "state.mine", "--index", url, "--allow-old-index")
    assert "it was set back" in run(home, work, "search", "--index", url, code=1)  # what was seen stays seen
    put(mirror, new)
    run(home, work, "search", "--index", str(mirror))
    assert not list(pathlib.Path(home["HOME"]).rglob(".dapr/indexes/*.[0-9]*"))


def test_an_index_has_an_end(home, work, shop, signed):
    url = shop()
    signed("--expires", "1s")
    d = json.loads((shop.folder / "index.json").read_text())
    d["expires"] = "2020-01-01T00:00:00Z"
    (shop.folder / "index.json").write_text(json.dumps(d))
    subprocess.run(["minisign", "-S", "-W", "-s", f"{work}/plugin.key", "-m", shop.folder / "index.json"], input="\n", text=True, check=True, capture_output=True) \
        if shutil.which("minisign") else pytest.skip("needs Debian's minisign")
    assert "has expired on 2020-01-01T00:00:00Z" in run(home, work, "install", "state.mine", "--index", url, code=1)
    run(home, work, "install", "state.mine", "--index", url, "--allow-old-index")
    signed("--expires", "0s")
    assert "expires" not in json.loads((shop.folder / "index.json").read_text())
    run(home, work, "search", "--index", url)
    assert "is negative" in signed("--expires", "-1s", code=1)


def test_an_index_of_a_stranger_is_not_used(home, work, shop, signed):
    run(home, work, "trust", "remove", "plugin")
    text = run(home, work, "search", "--index", shop(), code=1)
    assert "the index is signed by key" in text and "trust add KEY.pub" in text
    assert "holds no index" in run(home, work, "index", "sign", str(work), "--key", f"{work}/plugin.key", code=1)
    assert "cannot be the name" in run(home, work, "index", "sign", str(shop.folder), "--key", f"{work}/plugin.key", "--name", "a b", code=1)
    assert "The signature was one of the index before" in run(home, work, "index", str(shop.folder))
    assert not (shop.folder / "index.json.minisig").exists()


def test_bundles_and_layouts_carry_the_signature(home, work, shop, signed, folder):
    url = shop()
    run(home, work, "bundle", "state.mine@1.0.0", "--index", url, "--out", "b.tar")
    names = tarfile.open(work / "b.tar").getnames()
    assert names[:3] == ["bundle.json", "index.json", "index.json.minisig"]
    assert "Installed state.mine 1.0.0" in run(home, work, "install", "./b.tar")
    run(home, work, "bundle", "./b.tar", "--oci", "--out", "layout")  # from hand to hand
    assert (work / "layout/plugins.json.minisig").read_bytes() == files(shop.folder)[1]
    run(home, work, "remove", "state.mine")
    assert "Installed state.mine 1.0.0" in run(home, work, "install", "oci:layout")

    changed = work / "layout/plugins.json"
    changed.write_bytes(changed.read_bytes().replace(b'"1.0.0"', b'"1.0.9"'))
    assert "was changed after signing" in run(home, work, "install", "oci:layout", code=1)
    shutil.copy(shop.folder / "index.json", changed)
    (work / "layout/plugins.json.minisig").unlink()
    assert "its signature was taken away" in run(home, work, "install", "oci:layout", code=1)

    other = packed(home, work, folder, f"{work}/plugin.key", version="5.0.0")
    text = run(home, work, "bundle", "state.mine@1.0.0", other, "--index", url, "--out", "mixed.tar")
    assert "5.0.0 did not come from the signed index shop.example" in text and "index.json" not in tarfile.open(work / "mixed.tar").getnames()
    run(home, work, "bundle", other, "--oci", "--out", "own")
    run(home, work, "index", "sign", "own", "--key", f"{work}/plugin.key", "--name", "own.example")
    assert "Installed state.mine 5.0.0" in run(home, work, "install", "oci:own")
    run(home, work, "bundle", packed(home, work, folder, f"{work}/plugin.key", version="6.0.0"), "--oci", "--out", "own")
    assert "6.0.0 for" in (text := run(home, work, "install", "oci:own", code=1)) and "is not in the index that plugin has signed" in text
