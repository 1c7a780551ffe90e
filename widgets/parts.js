// What the scripts of several views share; `script` in view.py puts it before each of them.

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function numbers(bytes, kind) {
  // Copied: the bytes may begin anywhere, numbers may not.
  const view = bytes?.buffer ? bytes : new DataView(bytes ?? new ArrayBuffer(0));
  return new kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}
