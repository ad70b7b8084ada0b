"""What processes leave for the next ones."""

from mech_pipeline.user_cache import kept, kept_folder


def test_what_was_made_once_is_found_unless_its_file_is_damaged(tmp_path):
    path, made = tmp_path / "cache" / "it.js", []

    def make():
        made.append("a\r\nb — c\n")
        return made[-1]

    assert [kept(path, make) for _ in range(3)] == ["a\r\nb — c\n"] * 3
    assert len(made) == 1
    for damaged in (b"", b"no hash\n", b"\xff\xfe", path.read_bytes()[:-3]):
        path.write_bytes(damaged)
        assert kept(path, make) == made[0]
    assert len(made) == 5
    assert [each.name for each in path.parent.iterdir()] == ["it.js"], "no half-written file stays"


def test_whoever_cannot_write_does_without(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert kept(tmp_path / "cache" / "it.js", lambda: "made") == "made"


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_folder() == tmp_path / "mech_pipeline"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kept_folder() == tmp_path / ".cache" / "mech_pipeline"
