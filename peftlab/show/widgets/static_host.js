// Brings one twin to life on a page without a kernel. Module scripts share nothing, so no name here can clash.
const place = document.querySelector(`[data-peftlab-widget=${CSS.escape(__MARK__)}]:not([data-peftlab-alive])`);
if (place) {
  place.dataset.peftlabAlive = "yes"; // the script of an equal widget takes the next place
  const fallback = [...place.childNodes];
  const bytes = Uint8Array.from(atob(__STATE__), (letter) => letter.charCodeAt(0));
  const values = JSON.parse(new TextDecoder().decode(bytes));
  const listeners = {};
  const model = {
    onStaticPage: true,
    get: (name) => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      for (const listener of [...(listeners[`change:${name}`] ?? [])]) listener();
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((each) => each !== listener)),
    save_changes() {},
  };
  const address = URL.createObjectURL(new Blob([__MODULE__], { type: "text/javascript" }));
  try {
    const module = await import(address);
    module.default.render({ model, el: place });
  } catch (error) {
    place.replaceChildren(...fallback);
    throw error;
  } finally {
    URL.revokeObjectURL(address);
  }
}
