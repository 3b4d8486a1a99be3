// A recording in memory: what happened, what to jump to, and what was printed, to be searched. Bounded.

import type { Event, Facts } from './cast.ts';
import { printed, visible } from './printed.ts';

/** Output kept, in bytes. A longer recording is shown up to there, and the page says so. */
const MAX_BYTES = 128 * 1024 * 1024;
/** Events kept. */
const MAX_EVENTS = 2_000_000;
/** Marks kept: things to jump to. */
const MAX_MARKS = 5000;
/** Keys typed within so many seconds of each other are one mark. */
const TOGETHER = 2;
/** Longest text of a mark, in characters. */
const MAX_TEXT = 200;
/** Hits a search gives. */
const MAX_HITS = 200;
/** Characters shown before and after what was found. */
const AROUND = 32;

/** Something to jump to. */
export interface Mark {
  readonly at: number;
  readonly kind: 'input' | 'hidden' | 'resize' | 'transfer' | 'note' | 'gap' | 'end';
  text: string;
}

/** Where something was printed. */
export interface Hit {
  readonly at: number;
  readonly before: string;
  readonly found: string;
  readonly after: string;
}

export class Recording {
  readonly events: Event[] = [];
  readonly marks: Mark[] = [];
  /** Seconds from the beginning to the last event. */
  duration = 0;
  /** Whether there is more than is kept. */
  cut = false;
  #bytes = 0;
  #typing: { mark: Mark; last: number } | null = null;

  constructor(readonly facts: Facts) {}

  /** Takes one more event; `false`: there is no room for it. */
  add(event: Event): boolean {
    const size = event.kind === 'output' ? event.bytes.length : 0;
    if (this.cut || this.events.length >= MAX_EVENTS || this.#bytes + size > MAX_BYTES) {
      this.cut = true;
      return false;
    }
    this.events.push(event);
    this.#bytes += size;
    this.duration = Math.max(this.duration, event.at);
    this.#index = null;
    if (event.kind === 'input') this.#typed(event.at, event.text);
    else if (event.kind === 'resize') this.#mark({ at: event.at, kind: 'resize', text: `${event.columns} × ${event.rows}` });
    else if (event.kind !== 'output') this.#mark({ at: event.at, kind: event.kind, text: event.text });
    return true;
  }

  #typed(at: number, text: string): void {
    const typing = this.#typing;
    const shown = visible(text);
    if (typing !== null && at - typing.last <= TOGETHER && typing.mark.text.length < MAX_TEXT) {
      typing.mark.text += shown;
      typing.last = at;
    } else {
      const mark: Mark = { at, kind: 'input', text: shown };
      this.#mark(mark);
      this.#typing = { mark, last: at };
    }
    if (/[\r\n]/.test(text)) this.#typing = null;
  }

  #mark(mark: Mark): void {
    mark.text = mark.text.slice(0, MAX_TEXT);
    if (this.marks.length < MAX_MARKS) this.marks.push(mark);
  }

  /** The event that follows everything up to `at`. */
  after(at: number): number {
    let [low, high] = [0, this.events.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.events[middle]?.at ?? 0) <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #index: { text: string; lower: string; starts: number[]; times: number[] } | null = null;

  /** Everything printed, as text, and when. */
  #printed(): { text: string; lower: string; starts: number[]; times: number[] } {
    if (this.#index === null) {
      const parts: string[] = [];
      const starts: number[] = [];
      const times: number[] = [];
      let length = 0;
      for (const { at, text } of printed(this.events)) {
        starts.push(length);
        times.push(at);
        parts.push(text);
        length += text.length;
      }
      const text = parts.join('');
      // Not one letter may become two, or places would shift.
      const lower = text.replace(/[A-Z]/g, (c) => c.toLowerCase());
      this.#index = { text, lower, starts, times };
    }
    return this.#index;
  }

  /** What was printed until `at`: the last `most` characters. */
  textUntil(at: number, most: number): string {
    const { text, starts, times } = this.#printed();
    let end = text.length;
    const next = times.findIndex((time) => time > at);
    if (next >= 0) end = starts[next] ?? end;
    return text.slice(Math.max(0, end - most), end);
  }

  /** Where `wanted` was printed, whatever the case of its letters; at most {@link MAX_HITS} places. */
  search(wanted: string): Hit[] {
    const { text, lower, starts, times } = this.#printed();
    const needle = wanted.replace(/[A-Z]/g, (c) => c.toLowerCase());
    const hits: Hit[] = [];
    if (needle === '') return hits;
    let part = 0;
    for (let at = lower.indexOf(needle); at >= 0 && hits.length < MAX_HITS; at = lower.indexOf(needle, at + needle.length)) {
      const last = at + needle.length - 1;
      while (part + 1 < starts.length && (starts[part + 1] ?? 0) <= last) part += 1;
      const line = (piece: string): string => piece.replaceAll('\n', ' ');
      hits.push({
        at: times[part] ?? 0,
        before: line(text.slice(Math.max(0, at - AROUND), at)),
        found: line(text.slice(at, at + needle.length)),
        after: line(text.slice(at + needle.length, at + needle.length + AROUND)),
      });
    }
    return hits;
  }
}
