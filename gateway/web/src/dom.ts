// Elements by id, with the type they must have.

export function byId<T extends HTMLElement>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${id}`);
  return element;
}

/** A new element. */
export function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties: { className?: string; textContent?: string; type?: string; title?: string; hidden?: boolean } = {},
  ...children: Node[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}
