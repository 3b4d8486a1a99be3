// One terminal on the page: xterm.js, its add-ons, and what output from a stranger's container may not do.

import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon } from '@xterm/addon-search';
import { Unicode11Addon } from '@xterm/addon-unicode11';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import { type ITheme, Terminal as Xterm } from '@xterm/xterm';

import { openLink } from './dialogs.ts';
import type { Settings } from './settings.ts';

/** Bytes handed to xterm.js and not yet on the screen: above the first nothing more is taken until the second is reached. */
const HIGH_WATER = 256 * 1024;
const LOW_WATER = 64 * 1024;
/** Bytes xterm.js is given at once: between two such pieces it lets the page do other things. Some bytes take long. */
const PIECE = 4 * 1024;
/** Lines that can be scrolled back to. */
const SCROLLBACK = 10_000;
/** Matches marked at the same time. */
const MAX_MATCHES = 1000;

const DARK: ITheme = {
  background: '#10151c', foreground: '#d7dee8', cursor: '#7cc4ff', cursorAccent: '#10151c', selectionBackground: '#2f5d8c',
  black: '#1b222c', red: '#ff7b72', green: '#5fd38a', yellow: '#e3b341', blue: '#6cb6ff', magenta: '#d2a8ff', cyan: '#56d4dd', white: '#c9d4e0',
  brightBlack: '#7d8b9c', brightRed: '#ffa198', brightGreen: '#8ae8ad', brightYellow: '#f2cc60', brightBlue: '#96ccff', brightMagenta: '#e2c5ff',
  brightCyan: '#8be9f0', brightWhite: '#ffffff',
};
const LIGHT: ITheme = {
  background: '#ffffff', foreground: '#1c2530', cursor: '#0b5cad', cursorAccent: '#ffffff', selectionBackground: '#b6d8fb',
  black: '#1c2530', red: '#b3261e', green: '#176b3a', yellow: '#7a5600', blue: '#0b5cad', magenta: '#7b3fa8', cyan: '#0b6a75', white: '#5b6876',
  brightBlack: '#66727f', brightRed: '#c9372e', brightGreen: '#1c7f46', brightYellow: '#8a6400', brightBlue: '#1a6fc9', brightMagenta: '#8e4fc0',
  brightCyan: '#0f7d89', brightWhite: '#3d4854',
};
const MATCHES = {
  dark: { matchBackground: '#5a4a12', activeMatchBackground: '#b8860b', matchOverviewRuler: '#b8860b', activeMatchColorOverviewRuler: '#ffd866' },
  light: { matchBackground: '#fff0b3', activeMatchBackground: '#ffc94d', matchOverviewRuler: '#c99a00', activeMatchColorOverviewRuler: '#7a5600' },
};

const dark = window.matchMedia('(prefers-color-scheme: dark)');

/** What a search found. */
export type Found = (index: number, count: number) => void;

export class Terminal {
  readonly xterm: Xterm;
  readonly #fit = new FitAddon();
  readonly #search = new SearchAddon({ highlightLimit: MAX_MATCHES });
  readonly #encoder = new TextEncoder();
  #behind = 0;
  #welcome: (() => void)[] = [];

  constructor(settings: Settings, input: (bytes: Uint8Array) => void, resized: (columns: number, rows: number) => void) {
    this.xterm = new Xterm({
      allowProposedApi: true, // what the search and Unicode add-ons are built on
      fontFamily: 'ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      fontSize: settings.fontSize,
      lineHeight: 1.15,
      scrollback: SCROLLBACK,
      screenReaderMode: settings.screenReader,
      minimumContrastRatio: 4.5,
      cursorBlink: true,
      macOptionIsMeta: true,
      theme: dark.matches ? DARK : LIGHT,
      linkHandler: { activate: (_event, address) => openLink(address), allowNonHttpProtocols: false },
      logLevel: 'off', // else every byte that makes no sense is a line on the console
      windowOptions: {}, // programs may neither move the window nor ask about it
    });
    this.xterm.loadAddon(this.#fit);
    this.xterm.loadAddon(this.#search);
    this.xterm.loadAddon(new Unicode11Addon());
    this.xterm.loadAddon(new WebLinksAddon((_event, address) => openLink(address)));
    this.xterm.unicode.activeVersion = '11';
    this.#restrain();
    this.xterm.onData((text) => input(this.#encoder.encode(text)));
    this.xterm.onBinary((text) => input(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.xterm.onResize(({ cols, rows }) => resized(cols, rows));
    dark.addEventListener('change', this.#retheme);
  }

  /** Output is whatever the container prints; some of it would reach past the terminal. */
  #restrain(): void {
    const { parser } = this.xterm;
    const ignored = (): boolean => true;
    // Titles are the page's own; the clipboard is the user's (52); 9, 777 and 1337 are other terminals' notifications and files.
    for (const code of [0, 1, 2, 9, 50, 52, 777, 1337]) parser.registerOscHandler(code, ignored);
    // Colours may be asked for, but not set: the answer would carry to the shell's input what the output chose.
    const question = /^(\d+;)?\?$/;
    for (const code of [4, 10, 11, 12]) parser.registerOscHandler(code, (data) => !question.test(data));
    // xterm.js would repeat these as often as it is told: a hundred million times, with a few bytes. More than fills the screen
    // is nothing a program needs.
    const bound = (final: string, most: () => number): void => {
      parser.registerCsiHandler({ final }, ([count]) => typeof count === 'number' && count > most());
    };
    bound('b', () => this.xterm.cols * this.xterm.rows); // a character
    for (const lines of ['L', 'M', 'S', 'T']) bound(lines, () => this.xterm.rows);
    for (const stops of ['I', 'Z']) bound(stops, () => this.xterm.cols);
  }

  #retheme = (): void => {
    this.xterm.options.theme = dark.matches ? DARK : LIGHT;
  };

  /** Shows it in `parent`, which must be laid out already. */
  open(parent: HTMLElement): void {
    this.xterm.open(parent);
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => webgl.dispose()); // the DOM renderer takes over
      this.xterm.loadAddon(webgl);
    } catch {
      // No WebGL 2 here: the DOM renderer is slower and otherwise the same.
    }
    this.fit();
  }

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

  fit(): void {
    this.#fit.fit();
  }

  apply({ fontSize, screenReader }: Settings): void {
    this.xterm.options.fontSize = fontSize;
    this.xterm.options.screenReaderMode = screenReader;
    this.fit();
  }

  /**
   * Types what was pasted. Control characters are left out: one could end the paste in the shell's eyes, so that the rest
   * runs as commands nobody saw.
   */
  paste(text: string): void {
    this.xterm.paste(text.replace(/[^\P{Cc}\t\r\n]/gu, ''));
  }

  search(text: string, backwards: boolean, incremental: boolean): boolean {
    const decorations = dark.matches ? MATCHES.dark : MATCHES.light;
    return backwards
      ? this.#search.findPrevious(text, { decorations })
      : this.#search.findNext(text, { decorations, incremental });
  }

  onFound(found: Found): void {
    this.#search.onDidChangeResults(({ resultIndex, resultCount }) => found(resultIndex, resultCount));
  }

  stopSearch(): void {
    this.#search.clearDecorations();
  }

  dispose(): void {
    dark.removeEventListener('change', this.#retheme);
    this.#welcome.splice(0).forEach((go) => go());
    this.xterm.dispose();
  }
}
