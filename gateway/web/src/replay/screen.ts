// The screen of a recording: a terminal of the recorded size that nobody can type into, as large as there is room.

import { SearchAddon } from '@xterm/addon-search';
import { Unicode11Addon } from '@xterm/addon-unicode11';
import { Terminal as Xterm } from '@xterm/xterm';

import { Flow } from '../flow.ts';
import { restrain } from '../restrain.ts';
import { dark, FONT, MATCHES, theme } from '../theme.ts';

/** Smallest and largest letters, in pixels; a screen that does not fit even so is scrolled. */
const LETTERS = { min: 6, max: 22 } as const;
/** Lines that can be scrolled back to. */
const SCROLLBACK = 5000;
/** Ends whatever sequence the output is in the middle of (ECMA-48: CAN). */
const CANCEL = new Uint8Array([0x18]);
/** Standard error of a process without a terminal is told apart. */
const [RED, PLAIN] = [new TextEncoder().encode('\x1b[31m'), new TextEncoder().encode('\x1b[39m')];

export class Screen {
  readonly #xterm: Xterm;
  readonly #flow: Flow;
  readonly #search = new SearchAddon({ highlightLimit: 500 });

  constructor(private readonly room: HTMLElement, screenReader: boolean) {
    this.#xterm = new Xterm({
      allowProposedApi: true, // what the search and Unicode add-ons are built on
      fontFamily: FONT,
      lineHeight: 1.15,
      scrollback: SCROLLBACK,
      screenReaderMode: screenReader,
      minimumContrastRatio: 4.5,
      disableStdin: true,
      cursorBlink: false,
      cursorInactiveStyle: 'outline',
      theme: theme(),
      // Links of a recording lead nowhere: whoever looks is not who worked there.
      linkHandler: { activate: () => {}, allowNonHttpProtocols: false },
      logLevel: 'off', // else every byte that makes no sense is a line on the console
      windowOptions: {}, // output may neither move the window nor ask about it
    });
    this.#flow = new Flow(this.#xterm);
    this.#xterm.loadAddon(this.#search);
    this.#xterm.loadAddon(new Unicode11Addon());
    this.#xterm.unicode.activeVersion = '11';
    restrain(this.#xterm);
    this.#xterm.open(room);
    // It takes no keys: those are the player's.
    if (this.#xterm.textarea) this.#xterm.textarea.tabIndex = -1;
    dark.addEventListener('change', this.#retheme);
    new ResizeObserver(() => this.fit()).observe(room);
  }

  #retheme = (): void => {
    this.#xterm.options.theme = theme();
  };

  /** Empties it, for a recording of that size. `lines`: there was no terminal, so lines end in a line feed alone. */
  async reset(columns: number, rows: number, lines: boolean): Promise<void> {
    await this.#flow.write(CANCEL);
    await this.#flow.shown();
    this.#xterm.reset();
    this.#xterm.options.convertEol = lines;
    this.resize(columns, rows);
  }

  /** Shows output; resolves when more is welcome. */
  async write(bytes: Uint8Array, stderr: boolean): Promise<void> {
    if (!stderr) return this.#flow.write(bytes);
    await this.#flow.write(RED);
    await this.#flow.write(bytes);
    await this.#flow.write(PLAIN);
  }

  /** Resolves when everything written is on the screen. */
  shown(): Promise<void> {
    return this.#flow.shown();
  }

  resize(columns: number, rows: number): void {
    if (this.#xterm.cols === columns && this.#xterm.rows === rows) return;
    this.#xterm.resize(columns, rows);
    this.fit();
  }

  /** Letters as large as there is room. */
  fit(): void {
    const drawn = this.room.querySelector<HTMLElement>('.xterm-screen');
    const { clientWidth: width, clientHeight: height } = this.room;
    if (drawn === null || width === 0 || height === 0 || drawn.offsetWidth === 0) return;
    const now = this.#xterm.options.fontSize ?? LETTERS.max;
    // Some pixels for the scroll bar and for rounding.
    const scale = Math.min((width - 18) / drawn.offsetWidth, (height - 6) / drawn.offsetHeight);
    const size = Math.min(LETTERS.max, Math.max(LETTERS.min, Math.floor(now * scale * 4) / 4));
    if (Math.abs(size - now) >= 0.25) this.#xterm.options.fontSize = size;
  }

  set screenReader(on: boolean) {
    this.#xterm.options.screenReaderMode = on;
  }

  /** Marks what was searched for. */
  mark(text: string): void {
    const decorations = dark.matches ? MATCHES.dark : MATCHES.light;
    if (text === '') this.#search.clearDecorations();
    else this.#search.findPrevious(text, { decorations });
  }
}
