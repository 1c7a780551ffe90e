"""The picture stream of a video file through PyAV: what is in it, what is missing, and its frames in order."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream as AvStream

from cavis.video.containers import Container
from cavis.video.frames import Orientation, has_alpha, is_hdr
from cavis.video.info import UnreadableError, VideoError, VideoInfo
from cavis.video.scan import Scan, packets, raise_if_out_of_memory, scan_container


class VideoFile:
    """One video file, open for reading; a context manager.

    FFmpeg is told the container (see :mod:`cavis.video.containers`) and may open nothing but local files.
    ``max_pixels`` is enforced by the decoder before it allocates a picture, and on what it puts out.
    """

    def __init__(self, path: Path, container: Container, max_pixels: int | None = None) -> None:
        self.path = path
        self.kind = container
        self._max_pixels = max_pixels
        self.errors = 0
        """How often the decoder has given up on a packet so far."""
        self._open()

    def _open(self) -> None:
        try:
            self.container = av.open(str(self.path), format=self.kind.demuxer, options={"protocol_whitelist": "file"})
        except FFmpegError as error:
            raise_if_out_of_memory(error)
            raise UnreadableError(
                f"{self.path.name} could not be read as {self.kind.words}: "
                f"it is damaged or not complete ({error.strerror})."
            ) from error
        try:
            self.stream = self._picture_stream()
            self._check_size(self.stream.codec_context.width, self.stream.codec_context.height)
            self._decoder = self._make_decoder()
        except BaseException:
            self.container.close()
            raise

    def _picture_stream(self) -> AvStream:
        covers = Disposition.attached_pic
        streams = [stream for stream in self.container.streams.video if not stream.disposition & covers]
        if not streams:
            has_sound = " only sound" if self.container.streams.audio else " no pictures"
            raise VideoError(f"{self.path.name} contains{has_sound}; expected a file with a video stream.")
        if streams[0].codec_context is None:
            raise VideoError(f"The video in {self.path.name} is coded in a way that is not known here.")
        return streams[0]

    def _make_decoder(self) -> av.VideoCodecContext:
        decoder = self.stream.codec_context
        if decoder.name == "vp9" and self.stream.metadata.get("alpha_mode") == "1":
            # FFmpeg's own VP9 decoder drops the transparency, which travels beside the pictures.
            extradata = decoder.extradata
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            decoder.extradata = extradata
        if self._max_pixels is not None:
            # Decoders round sizes up to whole blocks of at most 64 pixels.
            decoder.options = {"max_pixels": str(int(self._max_pixels * 1.1) + 64 * 8192)}
        decoder.thread_type = "AUTO"
        decoder.thread_count = 2
        return decoder

    def _check_size(self, width: int, height: int) -> None:
        if self._max_pixels is not None and width * height > self._max_pixels:
            raise VideoError(
                f"{self.path.name} has frames of {width} x {height} pixels; "
                f"accepted are at most {self._max_pixels:,} pixels a frame."
            )

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, whichever decoder reads it."""
        return self.stream.codec_context.codec.canonical_name

    def scan(self) -> Scan:
        """Read the whole file without decoding and rewind it."""
        scan = scan_container(self.container, self.stream)
        self.rewind()
        return scan

    def rewind(self) -> None:
        """Go back to the first frame."""
        # Seeking to the start fails in damaged files and where time does not begin at 0; opening again does not.
        self.close()
        self._open()

    def seek(self, tick: int) -> None:
        """Go to a key frame at or before ``tick`` (units of the stream's time base), or to one a little behind it."""
        try:
            self.container.seek(tick, stream=self.stream)
        except FFmpegError:
            self.rewind()
        else:
            self._decoder.flush_buffers()

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode from the current position to the end, holding no frame; what cannot be decoded is left out."""
        if not self._decoder.is_open:
            self._open_decoder()
        for packet in packets(self.container, self.stream):
            if packet.size and not packet.is_corrupt:
                yield from self._decode(packet)
        yield from self._decode(None)

    def _open_decoder(self) -> None:
        try:
            self._decoder.open()
        except FFmpegError as error:
            raise_if_out_of_memory(error)
            raise UnreadableError(f"The video in {self.path.name} cannot be decoded ({error.strerror}).") from error

    def _decode(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        try:
            frames = self._decoder.decode(packet)
        except FFmpegError as error:
            raise_if_out_of_memory(error)
            self.errors += 1
            return
        for frame in frames:
            self._check_size(frame.width, frame.height)
            yield frame

    def first_frame(self) -> av.VideoFrame:
        """Decode the first readable frame and rewind; VideoError where there is none."""
        frame = next(self.frames(), None)
        self.rewind()
        if frame is None:
            raise UnreadableError(f"No frame of {self.path.name} can be read: it is damaged or not complete.")
        return frame

    def info(self, scan: Scan) -> VideoInfo:
        """What is known before all frames are decoded."""
        frame = self.first_frame()
        orientation = Orientation.of(frame)
        width, height = (frame.height, frame.width) if orientation.swaps_axes else (frame.width, frame.height)
        times = scan.times
        return VideoInfo(
            width=width,
            height=height,
            frames=len(scan.ticks),
            fps=round(1 / scan.interval, 6),
            duration=round(float(times[-1]) + scan.interval, 6) if len(times) else 0.0,
            codec=self.codec,
            container=self.kind.name,
            rotation=orientation.rotation,
            lost_frames=scan.missing,
            has_alpha=has_alpha(frame),
            high_dynamic_range=is_hdr(frame),
        )

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
