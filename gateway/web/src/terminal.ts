// One terminal on the page: xterm.js, its add-ons, and what output from a stranger's container may not do.

import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon } from '@xterm/addon-search';
import { Unicode11Addon } from '@xterm/addon-unicode11';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import { Terminal as Xterm } from '@xterm/xterm';

import { openLink } from './dialogs.ts';
import { Flow } from './flow.ts';
import { restrain } from './restrain.ts';
import type { Settings } from './settings.ts';
import { dark, FONT, MATCHES, theme } from './theme.ts';

/** Lines that can be scrolled back to. */
const SCROLLBACK = 10_000;
/** Matches marked at the same time. */
const MAX_MATCHES = 1000;

/** What a search found. */
export type Found = (index: number, count: number) => void;

export class Terminal {
  readonly xterm: Xterm;
  readonly #fit = new FitAddon();
  readonly #search = new SearchAddon({ highlightLimit: MAX_MATCHES });
  readonly #encoder = new TextEncoder();
  readonly #flow: Flow;

  constructor(settings: Settings, input: (bytes: Uint8Array) => void, resized: (columns: number, rows: number) => void) {
    this.xterm = new Xterm({
      allowProposedApi: true, // what the search and Unicode add-ons are built on
      fontFamily: FONT,
      fontSize: settings.fontSize,
      lineHeight: 1.15,
      scrollback: SCROLLBACK,
      screenReaderMode: settings.screenReader,
      minimumContrastRatio: 4.5,
      cursorBlink: true,
      macOptionIsMeta: true,
      theme: theme(),
      linkHandler: { activate: (_event, address) => openLink(address), allowNonHttpProtocols: false },
      logLevel: 'off', // else every byte that makes no sense is a line on the console
      windowOptions: {}, // programs may neither move the window nor ask about it
    });
    this.#flow = new Flow(this.xterm);
    this.xterm.loadAddon(this.#fit);
    this.xterm.loadAddon(this.#search);
    this.xterm.loadAddon(new Unicode11Addon());
    this.xterm.loadAddon(new WebLinksAddon((_event, address) => openLink(address)));
    this.xterm.unicode.activeVersion = '11';
    restrain(this.xterm);
    this.xterm.onData((text) => input(this.#encoder.encode(text)));
    this.xterm.onBinary((text) => input(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.xterm.onResize(({ cols, rows }) => resized(cols, rows));
    dark.addEventListener('change', this.#retheme);
  }

  #retheme = (): void => {
    this.xterm.options.theme = theme();
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
  write(bytes: Uint8Array): Promise<void> {
    return this.#flow.write(bytes);
  }

  /** Resolves when everything written is on the screen. */
  shown(): Promise<void> {
    return this.#flow.shown();
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
    this.#flow.close();
    this.xterm.dispose();
  }
}
