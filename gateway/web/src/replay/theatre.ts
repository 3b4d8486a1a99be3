// One session's recordings on the page: the list, the one that is open, and what can be done with it.

import { Refused } from '../api.ts';
import { byId } from '../dom.ts';
import type { Link } from '../link.ts';
import { announce, showTerminals } from '../page.ts';
import { save, type Settings } from '../settings.ts';
import { clock } from '../text.ts';
import { cast, type Item, list } from './api.ts';
import { CastReader, type Event } from './cast.ts';
import { follow, type Following } from './live.ts';
import { Player } from './player.ts';
import { Recording } from './recording.ts';
import { Screen } from './screen.ts';
import { drawFacts, drawHits, drawList, drawMarks, drawState, drawTicks, drawTime, notice, warn, word } from './view.ts';

/** Characters of text shown beside the terminal. */
const MAX_TEXT = 20_000;
/** How often the text follows while it plays, in milliseconds. */
const TEXT_EVERY = 500;
/** How often the marks follow while a recording is being made, in milliseconds. */
const MARKS_EVERY = 500;

export class Theatre {
  #screen: Screen | null = null;
  #player: Player | null = null;
  #recording: Recording | null = null;
  #item: Item | null = null;
  #items: readonly Item[] = [];
  #stop = new AbortController();
  #following: Following | null = null;
  #textAt = 0;
  #marksAt = 0;
  /** Whether the screen is ready for the recording on the page. */
  #ready: Promise<void> = Promise.resolve();
  #gone = false;

  constructor(
    readonly link: Link,
    private readonly settings: Settings,
  ) {}

  /** Asks for the list, and opens what is being made, or else the newest. */
  async start(): Promise<void> {
    notice('Connecting…', `Asking the gateway for the recordings of session ${this.link.namespace}/${this.link.name}.`);
    const again = { label: 'Look again', run: () => void this.start() };
    try {
      const found = await list(this.link);
      if (this.#gone) return;
      this.#items = found.items;
      byId('viewer', HTMLElement).textContent = found.viewer;
      byId('list-more', HTMLElement).hidden = !found.more;
      document.title = `Recordings of ${found.session} – Drawbridge`;
      this.#drawList();
      const open = found.items.filter((item) => !item.encrypted && item.state !== 'Broken');
      const first = open.find((item) => item.live) ?? open[0] ?? found.items[0];
      if (first === undefined) notice('Nothing to play', `Session ${found.session} has no recordings.`, { action: again });
      else await this.open(first);
    } catch (error) {
      if (this.#gone) return;
      const { code, message } = error instanceof Refused ? error : new Refused(0, String(error));
      if (code === 401) notice('This link opens nothing any more', message);
      else if (code === 403) notice('Not allowed', message);
      else notice(code === 0 ? 'No connection' : 'The gateway refused', message, { action: again });
    }
  }

  #drawList(): void {
    drawList(this.#items, this.#item, (item) => void this.open(item));
  }

  /** Loads a recording, or follows it while it is being made. */
  async open(item: Item): Promise<void> {
    this.#leave();
    this.#item = item;
    this.#drawList();
    if (item.encrypted || item.state === 'Broken') return this.#explain(item);
    showTerminals();
    this.#screen ??= new Screen(byId('screen', HTMLElement), this.settings.screenReader);
    this.#stop = new AbortController();
    const stop = this.#stop.signal;
    try {
      if (item.live) this.#follow(item);
      else await this.#load(item, stop);
    } catch (error) {
      if (stop.aborted || this.#gone) return;
      const message = error instanceof Refused ? error.message : 'It broke off: the connection, or the recording itself.';
      drawState('broken', 'Broken off');
      if (this.#recording === null) notice('It cannot be shown', message);
      else warn(`${message} What came until then can be played.`);
    }
  }

  /** What is not played here: why, and what to do. */
  #explain(item: Item): void {
    // Where it lies is known once it is sealed.
    const where = item.location === '' ? 'RECORDING' : word(item.location);
    if (item.state === 'Broken') {
      drawState('broken', 'Broken');
      const text = `It is not what its gateway recorded, or not all of it: ${item.reason}. This command says more:`;
      return notice('This recording is broken', text, { command: `drawbridge-audit verify ${where} --keys keys.json` });
    }
    drawState('encrypted', 'Encrypted');
    const yet = item.location === '' ? ' It is not sealed yet.' : '';
    const text = `Only who holds an identity that it was encrypted for can read it; this gateway holds none.${yet} With that identity in a file:`;
    notice('This recording is encrypted', text, { command: `drawbridge-audit replay ${where} --keys keys.json --identity identity.txt` });
  }

  async #load(item: Item, stop: AbortSignal): Promise<void> {
    drawState('loading', 'Loading…');
    const reader = (await cast(this.link, item.id, stop)).getReader();
    const lines = new CastReader();
    try {
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        if (stop.aborted) return;
        if (!this.#take(lines, lines.read(piece.value))) break;
        drawTime(this.#player?.at ?? 0, this.#recording?.duration ?? 0);
      }
    } finally {
      await reader.cancel().catch(() => {});
      if (!stop.aborted) this.#loaded(lines);
    }
    drawState(item.state.toLowerCase(), item.state);
    if (item.state === 'Unverified') warn(`Nobody is known to vouch for this recording: ${item.reason}.`);
    if (item.state === 'Interrupted') warn(`This recording ends before its session did: ${item.reason || 'no reason is known'}.`);
    if (this.#recording?.cut) warn('This recording is longer than this page holds: its end is missing here. drawbridge-audit replays all of it.');
    if (lines.strange > 0) warn(`${lines.strange} lines of this recording make no sense, and are left out. drawbridge-audit verify says more.`);
  }

  /** Takes events into the recording on the page, which begins with the first line; `false`: there is no room for more. */
  #take(lines: CastReader, events: Iterable<Event>): boolean {
    for (const event of events) {
      this.#begin(lines);
      if (this.#recording?.add(event) === false) return false;
    }
    this.#begin(lines);
    return true;
  }

  #begin(lines: CastReader): void {
    if (this.#recording !== null || lines.facts === null || this.#screen === null) return;
    this.#recording = new Recording(lines.facts);
    drawFacts(this.link.namespace, lines.facts);
    const watcher = {
      moved: (at: number, playing: boolean, busy: boolean) => this.#moved(at, playing, busy),
      skipped: (seconds: number) => announce(`Skipped ${clock(seconds)} in which nothing happened`, true),
    };
    this.#player = new Player(this.#recording, this.#screen, watcher);
    this.#player.skipIdle = byId('idle', HTMLButtonElement).getAttribute('aria-pressed') === 'true';
    this.takeSpeed();
    this.#ready = this.#player.seek(0);
  }

  /** Everything is there: it can be played. */
  #loaded(lines: CastReader): void {
    this.#begin(lines);
    const recording = this.#recording;
    if (recording === null) return;
    drawMarks(recording, (at) => this.goTo(at));
    drawTicks(recording);
    this.#enable(true);
    drawTime(this.#player?.at ?? 0, recording.duration);
    byId('play', HTMLButtonElement).focus();
  }

  #enable(on: boolean): void {
    for (const id of ['play', 'previous', 'next']) byId(id, HTMLButtonElement).disabled = !on;
    byId('seek', HTMLInputElement).disabled = !on;
  }

  #follow(item: Item): void {
    drawState('loading', 'Connecting…');
    const lines = new CastReader();
    this.#following = follow(this.link, item.id, {
      opened: () => drawState('live', 'Live'),
      lines: async (bytes) => {
        this.#take(lines, lines.read(bytes));
        await this.#ready; // else what is shown now would be wiped
        await this.#player?.follow();
        this.#followed();
      },
      closed: (end) => {
        this.#following = null;
        const over = end === 'ended';
        drawState(over ? 'ended' : 'broken', over ? 'Ended' : 'Disconnected');
        this.#loaded(lines);
        warn(over ? 'The session ended. What you saw can be played again.' : end);
      },
    });
  }

  #followed(): void {
    const recording = this.#recording;
    if (recording === null) return;
    drawTime(recording.duration, recording.duration);
    if (performance.now() - this.#marksAt < MARKS_EVERY) return;
    this.#marksAt = performance.now();
    drawMarks(recording, null);
    this.#follows(recording.duration);
  }

  #moved(at: number, playing: boolean, busy: boolean): void {
    const duration = this.#recording?.duration ?? 0;
    drawTime(at, duration);
    const play = byId('play', HTMLButtonElement);
    play.textContent = playing ? 'Pause' : 'Play';
    byId('screen', HTMLElement).setAttribute('aria-busy', String(busy));
    this.#follows(at);
  }

  /** Keeps the text beside the terminal, if it is shown, at the place. */
  #follows(at: number): void {
    if (performance.now() - this.#textAt < TEXT_EVERY && this.#player?.playing) return;
    this.#textAt = performance.now();
    if (byId('text-part', HTMLDetailsElement).open && this.#recording !== null) {
      const text = byId('text', HTMLElement);
      text.textContent = this.#recording.textUntil(at, MAX_TEXT);
      text.scrollTop = text.scrollHeight;
    }
  }

  showText(): void {
    this.#textAt = 0;
    if (this.#recording !== null) this.#follows(this.#player?.at ?? 0);
  }

  #leave(): void {
    this.#stop.abort();
    this.#following?.close();
    this.#following = null;
    this.#player?.close();
    this.#player = null;
    this.#recording = null;
    this.#enable(false);
    byId('warning', HTMLElement).hidden = true;
    drawMarks(null, null);
    drawTicks(null);
    drawHits('', []);
    drawTime(0, 0);
  }

  /** Ends everything: another link was opened in this page. */
  close(): void {
    this.#gone = true;
    this.#leave();
    byId('screen', HTMLElement).replaceChildren();
  }

  // What the buttons and keys do.

  toggle(): void {
    if (!byId('play', HTMLButtonElement).disabled) this.#player?.toggle();
  }

  goTo(at: number): void {
    if (!byId('seek', HTMLInputElement).disabled) void this.#player?.seek(at);
  }

  move(by: number): void {
    this.goTo((this.#player?.at ?? 0) + by);
  }

  mark(direction: 1 | -1): void {
    const at = this.#player?.at ?? 0;
    const marks = this.#recording?.marks ?? [];
    // Going back from a mark that is just playing goes to the one before.
    const mark = direction === 1 ? marks.find((mark) => mark.at > at + 0.01) : marks.findLast((mark) => mark.at < at - 0.5);
    if (mark === undefined) return announce(direction === 1 ? 'No further event' : 'No earlier event', true);
    this.goTo(mark.at);
    announce(`${clock(mark.at)}: ${mark.text}`);
  }

  faster(by: 1 | -1): void {
    const select = byId('speed', HTMLSelectElement);
    select.selectedIndex = Math.min(select.options.length - 1, Math.max(0, select.selectedIndex + by));
    this.takeSpeed();
    announce(`Speed ${select.options[select.selectedIndex]?.textContent ?? ''}`, true);
  }

  takeSpeed(): void {
    if (this.#player !== null) this.#player.speed = Number(byId('speed', HTMLSelectElement).value) || 1;
  }

  toggleIdle(): void {
    const button = byId('idle', HTMLButtonElement);
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(on));
    if (this.#player !== null) this.#player.skipIdle = on;
  }

  toggleReader(): void {
    this.settings.screenReader = !this.settings.screenReader;
    save(this.settings);
    byId('reader', HTMLButtonElement).setAttribute('aria-pressed', String(this.settings.screenReader));
    if (this.#screen !== null) this.#screen.screenReader = this.settings.screenReader;
  }

  find(): void {
    byId('find-part', HTMLDetailsElement).open = true;
    byId('find-input', HTMLInputElement).select();
    byId('find-input', HTMLInputElement).focus();
  }

  search(): void {
    const text = byId('find-input', HTMLInputElement).value;
    const hits = this.#recording?.search(text) ?? [];
    drawHits(text, hits, (hit) => {
      if (byId('seek', HTMLInputElement).disabled) return;
      void this.#player?.seek(hit.at).then(() => this.#screen?.mark(text));
    });
    if (text === '') this.#screen?.mark('');
  }
}
