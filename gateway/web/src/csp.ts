// Lets xterm.js work under a policy without `unsafe-inline`.
//
// It writes rules into <style> elements and once sets a `style` attribute, which such a policy forbids, because markup that
// slipped into the page could do the same. Rules set through the CSS object model are not forbidden: no markup can do that.

/** Stands in for a <style> element: its text becomes a sheet of the document. */
function sheetElement(): HTMLElement {
  const element = document.createElement('i');
  element.hidden = true;
  const sheet = new CSSStyleSheet();
  let text = '';
  Object.defineProperty(element, 'textContent', {
    get: () => text,
    set: (value: string) => {
      text = value;
      sheet.replaceSync(value);
      if (!document.adoptedStyleSheets.includes(sheet)) document.adoptedStyleSheets.push(sheet);
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

/** To be called once, before the first terminal. */
export function prepareDocument(): void {
  const createElement = document.createElement.bind(document) as (name: string, options?: ElementCreationOptions) => HTMLElement;
  const create = (name: string, options?: ElementCreationOptions): HTMLElement =>
    name === 'style' ? sheetElement() : createElement(name, options);
  document.createElement = create as typeof document.createElement;

  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (this: Element, name: string, value: string): void {
    if (name === 'style' && this instanceof HTMLElement) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
}
