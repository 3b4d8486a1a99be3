// The search bar.

import { byId } from './dom.ts';
import type { Terminal } from './terminal.ts';

export class SearchBar {
  readonly #bar = byId('search', HTMLElement);
  readonly #input = byId('search-input', HTMLInputElement);
  readonly #count = byId('search-count', HTMLElement);
  #terminal: Terminal | null = null;

  constructor(private readonly leave: () => void) {
    this.#input.oninput = () => this.#find(false, true);
    this.#bar.onkeydown = (event) => {
      if (event.key === 'Escape') this.close();
      else if (event.key === 'Enter' && event.target === this.#input) this.#find(event.shiftKey, false);
      else return;
      event.preventDefault();
    };
    byId('search-previous', HTMLButtonElement).onclick = () => this.#find(true, false);
    byId('search-next', HTMLButtonElement).onclick = () => this.#find(false, false);
    byId('search-close', HTMLButtonElement).onclick = () => this.close();
  }

  open(terminal: Terminal): void {
    this.#terminal = terminal;
    terminal.onFound((index, count) => {
      this.#count.textContent = count === 0 ? 'nothing found' : index < 0 ? `${count}+` : `${index + 1} of ${count}`;
    });
    this.#bar.hidden = false;
    const selected = terminal.xterm.getSelection();
    if (selected !== '' && !selected.includes('\n')) this.#input.value = selected;
    this.#input.select();
    this.#input.focus();
    this.#find(false, true);
  }

  #find(backwards: boolean, incremental: boolean): void {
    if (this.#input.value === '') {
      this.#terminal?.stopSearch();
      this.#count.textContent = '';
    } else {
      this.#terminal?.search(this.#input.value, backwards, incremental);
    }
  }

  close(): void {
    if (this.#bar.hidden) return;
    this.#bar.hidden = true;
    this.#terminal?.stopSearch();
    this.#terminal = null;
    this.leave();
  }
}
