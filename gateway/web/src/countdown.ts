// The time that is left, and the two warnings before it is over.

import { byId } from './dom.ts';
import { clock, spoken } from './text.ts';

/** When people are warned, in seconds before the end, and how it looks then. */
const WARNINGS = [
  { at: 60, level: 'danger' },
  { at: 300, level: 'warn' },
] as const;

export class Countdown {
  #expiresAt: number | null = null;
  #warned = Number.POSITIVE_INFINITY;
  #timer: number | undefined;

  constructor(private readonly over: () => void) {
    byId('warning-close', HTMLButtonElement).onclick = () => this.#hide();
  }

  /** Counts down to `expiresAt`, in this browser's time; `null`: nothing to count. */
  set(expiresAt: number | null): void {
    this.#expiresAt = expiresAt;
    if (expiresAt === null) this.stop();
    else this.#tick();
  }

  /** Stops, and takes any warning away; shows `text` instead of a time. */
  stop(text = '–'): void {
    window.clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#hide();
    byId('left', HTMLElement).textContent = text;
    delete document.body.dataset['left'];
  }

  #hide(): void {
    byId('warning', HTMLElement).hidden = true;
  }

  #tick = (): void => {
    window.clearTimeout(this.#timer);
    if (this.#expiresAt === null) return;
    const ms = this.#expiresAt - Date.now();
    const seconds = ms / 1000;
    byId('left', HTMLElement).textContent = clock(seconds);
    const warning = WARNINGS.find(({ at }) => seconds <= at);
    if (warning === undefined) delete document.body.dataset['left'];
    else document.body.dataset['left'] = warning.level;
    if (seconds <= 0) {
      this.#hide();
      this.over();
      return;
    }
    if (warning !== undefined && warning.at < this.#warned) {
      this.#warned = warning.at;
      byId('warning-text', HTMLElement).textContent =
        `This session ends in ${spoken(seconds)}. What runs in the terminal is cut off then.`;
      byId('warning', HTMLElement).hidden = false;
    }
    // At the next whole second, so that no number is left out.
    this.#timer = window.setTimeout(this.#tick, (ms % 1000) + 5);
  };
}
