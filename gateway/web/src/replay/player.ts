// Plays a recording onto a screen: at a speed, from any place, without the waiting if so wished.

import type { Event } from './cast.ts';
import type { Recording } from './recording.ts';
import type { Screen } from './screen.ts';

/** A pause longer than this many seconds is cut to it, if idle time is skipped; and how much must be cut to be told. */
const IDLE = 2;
const TOLD = 10;
/** Events written before the page may do other things. */
const BATCH = 500;
/** Most time that passes from one picture to the next, in seconds: a tab in the background plays on from where it was. */
const MAX_STEP = 1;

export interface Watcher {
  /** Where it is, and whether it plays; `busy`: it is on its way to another place. */
  moved(at: number, playing: boolean, busy: boolean): void;
  /** So many seconds in which nothing happened were left out. */
  skipped(seconds: number): void;
}

export class Player {
  speed = 1;
  skipIdle = true;
  at = 0;
  #next = 0;
  #playing = false;
  #then = 0;
  /** Counts what was asked for: an older wish gives way. */
  #wish = 0;
  #busy = false;
  #frame = 0;

  constructor(
    readonly recording: Recording,
    private readonly screen: Screen,
    private readonly watcher: Watcher,
  ) {}

  get playing(): boolean {
    return this.#playing;
  }

  play(): void {
    if (this.#playing) return;
    this.#playing = true;
    if (this.at >= this.recording.duration) void this.seek(0);
    this.#then = performance.now();
    this.#told();
    this.#frame = requestAnimationFrame(this.#tick);
  }

  pause(): void {
    this.#playing = false;
    cancelAnimationFrame(this.#frame);
    this.#told();
  }

  toggle(): void {
    if (this.#playing) this.pause();
    else this.play();
  }

  /** Shows the screen as it was `at` seconds after the beginning. */
  async seek(at: number): Promise<void> {
    const wish = ++this.#wish;
    const to = Math.min(Math.max(0, at), this.recording.duration);
    this.#busy = true;
    const back = to < this.at || this.#next === 0;
    this.at = to;
    this.#told();
    if (back) {
      const { columns, rows, tty } = this.recording.facts;
      this.#next = 0;
      await this.screen.reset(columns, rows, !tty);
      if (wish !== this.#wish) return;
    }
    // From the beginning, or from here on: the same bytes in the same order, so that the screen is exactly what it was.
    const end = this.recording.after(to);
    for (let count = 0; this.#next < end; count += 1) {
      const event = this.recording.events[this.#next];
      this.#next += 1;
      if (event !== undefined) await this.#show(event);
      if (wish !== this.#wish) {
        // The newer wish goes on from the beginning: only so much was written.
        return;
      }
      if (count % BATCH === BATCH - 1) await new Promise((go) => setTimeout(go));
    }
    await this.screen.shown();
    if (wish !== this.#wish) return;
    this.#busy = false;
    this.#then = performance.now();
    this.#told();
  }

  /** Shows everything there is by now: of a recording that is being made. */
  async follow(): Promise<void> {
    for (let event = this.recording.events[this.#next]; event !== undefined; event = this.recording.events[this.#next]) {
      this.#next += 1;
      this.at = event.at;
      await this.#show(event);
    }
  }

  #show(event: Event): Promise<void> | void {
    if (event.kind === 'output') return this.screen.write(event.bytes, event.stderr);
    if (event.kind === 'resize') this.screen.resize(event.columns, event.rows);
  }

  #tick = (now: number): void => {
    if (!this.#playing) return;
    void this.#step(now).then(() => {
      if (this.#playing) this.#frame = requestAnimationFrame(this.#tick);
    });
  };

  async #step(now: number): Promise<void> {
    const passed = Math.min(MAX_STEP, Math.max(0, (now - this.#then) / 1000)) * this.speed;
    this.#then = now;
    if (this.#busy) return;
    const { events, duration } = this.recording;
    const next = events[this.#next];
    let to = this.at + passed;
    if (this.skipIdle && next !== undefined && next.at - this.at > IDLE) {
      const cut = next.at - this.at - IDLE;
      to += cut;
      if (cut >= TOLD) this.watcher.skipped(cut);
    }
    to = Math.min(to, duration);
    const wish = this.#wish;
    for (let event = events[this.#next]; event !== undefined && event.at <= to; event = events[this.#next]) {
      this.#next += 1;
      await this.#show(event);
      if (wish !== this.#wish) return; // somebody went elsewhere meanwhile
    }
    this.at = to;
    if (to >= duration) this.pause();
    else this.#told();
  }

  #told(): void {
    this.watcher.moved(this.at, this.#playing, this.#busy);
  }

  /** Ends it. */
  close(): void {
    this.#wish += 1;
    this.#playing = false;
    cancelAnimationFrame(this.#frame);
  }
}
