from dataclasses import replace

import numpy as np
import pytest
from made_up_font import made_up_font

from cavis import rle
from cavis.records import Track, VideoResult
from cavis.visualization import overlay
from cavis.visualization.overlay import (
    DrawnTrack,
    OverlayStyle,
    caption,
    draw,
    plain_caption,
    render_frame,
    render_video,
)
from cavis.visualization.palette import colour

HEIGHT, WIDTH, FRAMES = 90, 120, 4
PLAIN = OverlayStyle(label=False, contour=0)


def track(id_, place, score=0.87, hidden=(), size=20):
    masks, boxes = [], np.zeros((FRAMES, 4))
    for t in range(FRAMES):
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[place[0] : place[0] + size, place[1] + 8 * t : place[1] + 8 * t + size] = True
        masks.append(None if t in hidden else rle.encode(mask))
        boxes[t] = (0, 0, 0, 0) if t in hidden else rle.box(masks[-1])
    scores = np.array([score, 0.01])
    return Track(id_, scores, tuple(masks), boxes, np.zeros((FRAMES, 2)), np.zeros((FRAMES, 2)))


def result(*tracks):
    return VideoResult(tracks, HEIGHT, WIDTH, np.arange(FRAMES) / 10, ("giant_panda", "dog"), "made up")


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def changed(before, after):
    return (before != after).any(-1)


def test_only_the_pixels_of_the_mask_are_tinted_and_by_the_given_opacity(frame):
    shown = track(3, (30, 20))
    drawn = render_frame(frame, result(shown), 1, replace(PLAIN, mask_alpha=0.4))
    mask = rle.decode(shown.masks[1])
    np.testing.assert_array_equal(drawn[~mask], frame[~mask])
    np.testing.assert_allclose(drawn[mask], 0.6 * frame[mask] + 0.4 * np.array(colour(3)), atol=1.5)


def test_the_frame_itself_is_left_alone(frame):
    before = frame.copy()
    frame.setflags(write=False)
    assert changed(render_frame(frame, result(track(1, (30, 20))), 0), frame).any()
    np.testing.assert_array_equal(frame, before)


def test_the_contour_is_the_rim_of_the_mask_at_full_strength(frame):
    shown = track(3, (30, 20))
    drawn = render_frame(frame, result(shown), 0, OverlayStyle(mask_alpha=0, contour=2, label=False))
    rim = np.zeros((HEIGHT, WIDTH), dtype=bool)
    rim[30:50, 20:40] = True
    rim[32:48, 22:38] = False
    np.testing.assert_array_equal(drawn[rim], np.broadcast_to(colour(3), (rim.sum(), 3)))
    np.testing.assert_array_equal(drawn[~rim], frame[~rim])


def test_hidden_and_empty_tracks_draw_nothing(frame):
    empty = rle.encode(np.zeros((HEIGHT, WIDTH), dtype=bool))
    hidden = track(1, (30, 20), hidden=(2,))
    hollow = replace(track(2, (30, 20)), masks=(empty,) * FRAMES)
    np.testing.assert_array_equal(render_frame(frame, result(hidden, hollow), 2, OverlayStyle(box=True)), frame)


def test_the_better_track_lies_on_top(frame):
    best, other = track(1, (30, 20), 0.9), track(2, (30, 20), 0.5)
    drawn = render_frame(frame, result(best, other), 0, replace(PLAIN, mask_alpha=1))
    assert tuple(drawn[40, 30]) == colour(1)


def test_selected_tracks_stand_out_on_top_of_faint_ones(frame):
    best, other = track(1, (30, 20), 0.9), track(2, (30, 20), 0.5)
    both = result(best, other)
    drawn = render_frame(frame, both, 0, replace(PLAIN, mask_alpha=1), selected={2})
    assert tuple(drawn[40, 30]) == colour(2)
    apart = result(track(1, (30, 20)), track(2, (60, 60)))
    plain, faint = render_frame(frame, apart, 0, PLAIN), render_frame(frame, apart, 0, PLAIN, selected={2})
    difference = np.abs(plain.astype(int) - frame)[30:50, 20:40].sum()
    assert 0 < np.abs(faint.astype(int) - frame)[30:50, 20:40].sum() < 0.6 * difference
    np.testing.assert_array_equal(faint[60:80], plain[60:80])
    everything = OverlayStyle(mask_alpha=0, contour=0, box=True, trail=3)
    np.testing.assert_array_equal(render_frame(frame, both, 3, everything, selected=set()), frame)


def test_labels_stay_inside_and_do_not_cover_each_other():
    frame = np.zeros((200, 300, 3), dtype=np.uint8)
    corners = [(0, 0), (0, 280), (180, 0), (180, 280), (90, 140), (92, 143)]
    style = OverlayStyle(mask_alpha=0, contour=0, font_size=12)
    alone = []
    for y, x in corners:
        drawn = [DrawnTrack(np.ones((20, 20), dtype=bool), (x, y, x + 20, y + 20), colour(0), "dog 3 · 0.87")]
        alone.append(changed(draw(frame, drawn, style), frame).sum())
    assert min(alone) == max(alone) > 300
    together = [
        DrawnTrack(np.ones((20, 20), dtype=bool), (x, y, x + 20, y + 20), colour(0), "dog 3 · 0.87") for y, x in corners
    ]
    assert changed(draw(frame, together, style), frame).sum() == sum(alone)


def test_the_label_tells_category_id_and_score():
    shown = track(3, (30, 20))
    assert caption(result(shown), shown) == "giant panda 3 · 0.87"
    assert caption(result(shown), shown, score=False) == "giant panda 3"


@pytest.fixture
def system_fonts(monkeypatch):
    """Say which fonts the computer has."""

    def have(*names):
        monkeypatch.setattr(overlay, "SYSTEM_FONTS", names)
        for kept in (overlay._font, overlay._text):
            kept.cache_clear()

    yield have
    have()  # what was drawn with them is forgotten


LABELS_ONLY = OverlayStyle(mask_alpha=0, contour=0, font_size=12)


def labelled(name, frame, id_=3):
    named = replace(result(track(id_, (30, 20))), categories=("something", name))
    second = replace(named.tracks[0], class_scores=np.array([0.01, 0.87]))
    return render_frame(frame, replace(named, tracks=(second,)), 0, LABELS_ONLY)


def test_names_that_no_font_can_write_are_told_apart_by_class_and_track(frame, system_fonts):
    system_fonts()
    shown = track(3, (30, 20))
    assert plain_caption(result(shown), shown) == "class 1, track 3 · 0.87"
    assert plain_caption(result(shown), shown, score=False) == "class 1, track 3"
    plain = DrawnTrack(np.ones((20, 20), dtype=bool), (20, 30, 40, 50), colour(3), "class 2, track 3 · 0.87")
    for name in ("猫", "собака", "dog 狗"):
        np.testing.assert_array_equal(labelled(name, frame), draw(frame, [plain], LABELS_ONLY))
    assert changed(labelled("猫", frame, 3), labelled("猫", frame, 4)).any()
    assert changed(labelled("dog", frame), labelled("猫", frame)).any()


def test_a_label_without_another_is_told_apart_by_the_numbers_of_its_letters(frame, system_fonts):
    system_fonts()

    def drawn(label):
        return draw(frame, [DrawnTrack(np.ones((20, 20), bool), (20, 30, 40, 50), colour(3), label)], LABELS_ONLY)

    assert changed(drawn("猫 · 0.87"), drawn("狗 · 0.87")).any()
    np.testing.assert_array_equal(drawn("猫 · 0.87"), drawn("U+732B · 0.87"))


def test_a_font_of_the_system_writes_what_the_usual_one_cannot(frame, system_fonts, tmp_path):
    font = tmp_path / "made up.ttf"
    font.write_bytes(made_up_font("猫狗牛 ·.0123456789"))
    system_fonts("no such font.ttf", str(font))
    drawn = [labelled(name, frame) for name in ("猫", "狗")]
    assert changed(*drawn).any()
    numbers_only = [labelled(name, frame) for name in ("鳥", "魚")]  # not in that font either
    np.testing.assert_array_equal(*numbers_only)
    assert changed(drawn[0], numbers_only[0]).any()


def test_latin_names_look_for_no_font_of_the_system(frame, system_fonts, monkeypatch):
    system_fonts("DejaVuSans.ttf")
    asked = []
    usual = {size: overlay.ImageFont.load_default(size) for size in (12, 20)}

    def truetype(name, size):
        asked.append(name)
        raise OSError("cannot open resource")

    monkeypatch.setattr(overlay.ImageFont, "load_default", usual.get)
    monkeypatch.setattr(overlay.ImageFont, "truetype", truetype)
    labelled("dog", frame)
    assert asked == []
    for name in ("猫", "狗"):
        labelled(name, frame)
    assert asked == ["DejaVuSans.ttf"]  # and for others only once


def test_the_trail_leads_through_past_centres_and_breaks_where_the_track_was_hidden():
    frame = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    style = OverlayStyle(mask_alpha=0, contour=0, label=False, trail=3)
    whole = changed(render_frame(frame, result(track(4, (30, 20))), 3, style), frame)
    assert whole[40, 42:54].all()
    assert not whole[:30].any()
    assert not whole[:, :25].any()
    gap = changed(render_frame(frame, result(track(4, (30, 20), hidden=(1,))), 3, style), frame)
    assert gap[40, 48:54].all()
    assert not gap[:, :44].any()
    first = render_frame(frame, result(track(4, (30, 20))), 0, style)
    np.testing.assert_array_equal(first, frame)


def test_the_box_frames_the_mask(frame):
    style = OverlayStyle(mask_alpha=0, contour=0, label=False, box=True)
    different = changed(render_frame(frame, result(track(3, (30, 20))), 0, style), frame)
    rows, columns = np.nonzero(different)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 49, 20, 39)
    assert not different[35:45, 25:35].any()


def test_sixty_tracks_are_drawn(frame):
    crowd = result(*(track(n, (n % 10 * 8, n // 10 * 12), size=6) for n in range(60)))
    drawn = render_frame(frame, crowd, 0, PLAIN)
    assert all(changed(drawn, frame)[n % 10 * 8 + 3, n // 10 * 12 + 3] for n in range(60))


def test_a_video_is_rendered_frame_by_frame(frame):
    shown = result(track(1, (30, 20)))
    frames = [np.roll(frame, t, 1) for t in range(FRAMES)]
    rendered = list(render_video(iter(frames), shown))
    for t in range(FRAMES):
        np.testing.assert_array_equal(rendered[t], render_frame(frames[t], shown, t))


def test_frames_that_do_not_fit_the_result_are_refused_in_words(frame):
    shown = result(track(1, (30, 20)))
    with pytest.raises(ValueError, match="expected a frame of 90 x 120 pixels, got 89 x 120"):
        render_frame(frame[1:], shown, 0)
    with pytest.raises(ValueError, match="expected a frame between 0 and 3, got 4"):
        render_frame(frame, shown, 4)
    with pytest.raises(ValueError, match="expected a video of 4 frames, got 3"):
        list(render_video([frame] * 3, shown))
    with pytest.raises(ValueError, match="expected a video of 4 frames, got more"):
        list(render_video([frame] * 5, shown))


@pytest.mark.parametrize("fields", [{"mask_alpha": 1.5}, {"trail": -1}, {"contour": -2}, {"font_size": 0}])
def test_styles_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match="expected"):
        OverlayStyle(**fields)
