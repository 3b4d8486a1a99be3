// Output on its way into xterm.js: never more than a little of it at a time.

import type { Terminal } from '@xterm/xterm';

/** Bytes handed to xterm.js and not yet on the screen: above the first nothing more is taken until the second is reached. */
const HIGH_WATER = 256 * 1024;
const LOW_WATER = 64 * 1024;
/** Bytes xterm.js is given at once: between two such pieces it lets the page do other things. Some bytes take long. */
const PIECE = 4 * 1024;

export class Flow {
  #behind = 0;
  #welcome: (() => void)[] = [];

  constructor(private readonly xterm: Terminal) {}

  /** Shows output; resolves when more is welcome. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#behind += bytes.length;
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, at + PIECE);
      this.xterm.write(piece, () => {
        this.#behind -= piece.length;
        if (this.#behind <= LOW_WATER) this.#welcome.splice(0).forEach((go) => go());
      });
    }
    if (this.#behind > HIGH_WATER) await new Promise<void>((go) => this.#welcome.push(go));
  }

  /** Resolves when everything written is on the screen. */
  shown(): Promise<void> {
    return new Promise((resolve) => this.xterm.write('', resolve));
  }

  /** Lets go whoever waits. */
  close(): void {
    this.#welcome.splice(0).forEach((go) => go());
  }
}
