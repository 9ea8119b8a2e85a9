const HTML = "http://www.w3.org/1999/xhtml";

/**
 * The terminal writes its style sheets into the page as text, which a strict content security policy refuses. While
 * `work` runs, every style element it makes is a stand-in whose text becomes an adopted sheet instead.
 */
export function withAdoptedStyles<T>(work: () => T): T {
  Object.defineProperty(document, "createElement", {
    configurable: true,
    value: (name: string) => (name === "style" ? standIn() : document.createElementNS(HTML, name)),
  });
  try {
    return work();
  } finally {
    // The document's own method, of its prototype, is there again.
    Reflect.deleteProperty(document, "createElement");
  }
}

function standIn(): HTMLTemplateElement {
  const element = document.createElementNS(HTML, "template");
  if (!(element instanceof HTMLTemplateElement)) throw new Error("this is no page of HTML");
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(element, "textContent", {
    get: () => "",
    set: (text: string) => {
      sheet.replaceSync(text);
    },
  });
  const remove = element.remove.bind(element);
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
    remove();
  };
  return element;
}
