"""Pictures: files, Pillow images, arrays and tensors to (C, H, W) floats, and back."""

# what a folder is searched for; files named one by one are recognised by their content
SUFFIXES = frozenset({
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm"),
    *(".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".tga", ".qoi", ".ico", ".heic", ".heif", ".hif", ".jxl"),
})  # fmt: skip
