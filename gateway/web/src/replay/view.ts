// What the page of recordings shows around the screen. Every text is set as text, never as markup.

import { byId, make } from '../dom.ts';
import { showNotice } from '../page.ts';
import { clock } from '../text.ts';
import type { Item } from './api.ts';
import type { Facts } from './cast.ts';
import type { Hit, Mark, Recording } from './recording.ts';

/** Marks in the list at once. */
const MAX_SHOWN = 1000;
/** Places on the time line where a tick can be. */
const PLACES = 400;

const KINDS: Record<Mark['kind'], string> = {
  input: 'Typed', hidden: 'Hidden', resize: 'Size', transfer: 'Transfer', note: 'Note', gap: 'Missing', end: 'End',
};
const shown = new Set<Mark['kind']>(['input', 'hidden', 'resize', 'transfer', 'note', 'gap', 'end']);

export function warn(text: string): void {
  byId('warning-text', HTMLElement).textContent = text;
  byId('warning', HTMLElement).hidden = false;
}

/** What fills the place of the player, with a command to copy if there is one that helps. */
export function notice(title: string, text: string, more: { action?: { label: string; run: () => void }; command?: string } = {}): void {
  showNotice(title, text, more.action);
  const command = byId('notice-command', HTMLElement);
  command.textContent = more.command ?? '';
  command.hidden = more.command === undefined;
}

/** The word of a shell that stands for `text`. */
export function word(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function drawState(state: string, text: string): void {
  byId('state', HTMLElement).dataset['state'] = state;
  byId('state-text', HTMLElement).textContent = text;
}

export function drawFacts(namespace: string, facts: Facts): void {
  byId('where', HTMLElement).textContent = [namespace, facts.pod, facts.container].filter((part) => part !== '').join('/');
  byId('who', HTMLElement).textContent = facts.user || '–';
  const what = byId('what', HTMLElement);
  what.textContent = facts.command || 'attached';
  what.title = facts.command;
}

/** Seconds for people who hear them. */
function long(seconds: number): string {
  const [m, s] = [Math.floor(seconds / 60), Math.floor(seconds % 60)];
  return m > 0 ? `${m} minutes ${s} seconds` : `${s} seconds`;
}

export function drawTime(at: number, duration: number): void {
  // A clock that counts up shows whole seconds that are over.
  byId('at', HTMLElement).textContent = clock(Math.floor(at));
  byId('duration', HTMLElement).textContent = clock(Math.floor(duration));
  const seek = byId('seek', HTMLInputElement);
  const max = String(Math.ceil(duration * 10) / 10);
  if (seek.max !== max) seek.max = max;
  seek.value = String(at);
  seek.setAttribute('aria-valuetext', `${long(at)} of ${long(duration)}`);
}

export function drawList(items: readonly Item[], open: Item | null, choose: (item: Item) => void): void {
  byId('list', HTMLElement).replaceChildren(
    ...items.map((item) => {
      const began = item.startedAt === null ? 'unknown time' : new Date(item.startedAt).toLocaleString();
      const state = item.live ? 'Live' : item.state;
      const chip = make('span', { className: 'verdict', textContent: state });
      chip.dataset['state'] = state.toLowerCase();
      const parts = [
        item.seconds === null ? '' : clock(item.seconds),
        item.end,
        item.transfers > 0 ? `${item.transfers} ${item.transfers === 1 ? 'transfer' : 'transfers'}` : '',
        item.gaps > 0 ? 'parts missing' : '',
        item.encrypted ? 'encrypted: only drawbridge-audit plays it' : '',
        item.reason,
      ].filter((part) => part !== '');
      const button = make(
        'button',
        { className: 'recording', type: 'button' },
        make('span', { className: 'when', textContent: began }),
        chip,
        make('span', { className: 'command', textContent: item.command || '–' }),
        make('span', { className: 'soft', textContent: parts.join(' · ') }),
      );
      if (item.id === open?.id) button.setAttribute('aria-current', 'true');
      button.onclick = () => choose(item);
      return make('li', {}, button);
    }),
  );
}

/** The list of marks; without `choose` they cannot be jumped to yet. */
export function drawMarks(recording: Recording | null, choose: ((at: number) => void) | null): void {
  const marks = recording?.marks ?? [];
  const kinds = [...new Set(marks.map((mark) => mark.kind))];
  byId('kinds', HTMLElement).replaceChildren(
    make('legend', { className: 'unseen', textContent: 'Kinds shown' }),
    ...kinds.map((kind) => {
      const box = make('input', { type: 'checkbox' });
      box.checked = shown.has(kind);
      box.onchange = () => {
        if (box.checked) shown.add(kind);
        else shown.delete(kind);
        drawMarks(recording, choose);
        if (choose !== null) drawTicks(recording);
      };
      const label = make('label', {}, box, document.createTextNode(` ${KINDS[kind]}`));
      label.dataset['kind'] = kind;
      return label;
    }),
  );
  const wanted = marks.filter((mark) => shown.has(mark.kind));
  const list = byId('marks', HTMLElement);
  list.replaceChildren(
    ...wanted.slice(0, MAX_SHOWN).map((mark) => {
      const button = make(
        'button',
        { className: 'mark', type: 'button' },
        make('span', { className: 'when', textContent: clock(Math.floor(mark.at)) }),
        make('span', { className: 'kind', textContent: KINDS[mark.kind] }),
        make('span', { className: 'text', textContent: mark.text }),
      );
      button.dataset['kind'] = mark.kind;
      button.disabled = choose === null;
      button.onclick = () => choose?.(mark.at);
      return make('li', {}, button);
    }),
  );
  const more = byId('marks-more', HTMLElement);
  more.hidden = recording === null || (marks.length > 0 && wanted.length <= MAX_SHOWN);
  more.textContent = marks.length === 0 ? 'Nothing but output.' : `${wanted.length - MAX_SHOWN} more are not listed.`;
}

export function drawTicks(recording: Recording | null): void {
  const places = new Map<string, HTMLElement>();
  for (const mark of recording?.marks ?? []) {
    if (!shown.has(mark.kind) || recording === null || recording.duration === 0) continue;
    const place = Math.round((mark.at / recording.duration) * PLACES);
    const key = `${place} ${mark.kind}`;
    if (places.has(key)) continue;
    const tick = make('i');
    tick.dataset['kind'] = mark.kind;
    tick.style.left = `${(place / PLACES) * 100}%`;
    places.set(key, tick);
  }
  byId('ticks', HTMLElement).replaceChildren(...places.values());
}

export function drawHits(wanted: string, hits: readonly Hit[], choose: (hit: Hit) => void = () => {}): void {
  byId('find-count', HTMLElement).textContent =
    wanted === '' ? '' : hits.length === 0 ? 'Not found.' : hits.length >= 200 ? 'The first 200 places.' : `${hits.length} ${hits.length === 1 ? 'place' : 'places'}.`;
  byId('hits', HTMLElement).replaceChildren(
    ...hits.map((hit) => {
      const button = make(
        'button',
        { className: 'hit', type: 'button' },
        make('span', { className: 'when', textContent: clock(Math.floor(hit.at)) }),
        make('span', { className: 'text' }, document.createTextNode(hit.before), make('mark', { textContent: hit.found }), document.createTextNode(hit.after)),
      );
      button.onclick = () => choose(hit);
      return make('li', {}, button);
    }),
  );
}
