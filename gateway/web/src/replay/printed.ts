// What a terminal was told, as text that people can search and read: without what moves, colours or answers. Pure.

import type { Event } from './cast.ts';

/** Where in a sequence the output is (ECMA-48): the text; after ESC; in CSI; in a string that ST or BEL ends; after its ESC. */
type State = 'text' | 'escape' | 'csi' | 'string' | 'string-escape';

/** The printed text, piece by piece. A sequence may begin in one piece and end in another. */
export function* printed(events: readonly Event[]): Generator<{ at: number; text: string }> {
  const decoders = { out: new TextDecoder(), err: new TextDecoder() };
  let state: State = 'text';
  for (const event of events) {
    if (event.kind !== 'output') continue;
    const decoder = event.stderr ? decoders.err : decoders.out;
    const raw = decoder.decode(event.bytes, { stream: true });
    let text = '';
    for (const c of raw) {
      const code = c.codePointAt(0) ?? 0;
      if (code === 0x18 || code === 0x1a) state = 'text'; // they end every sequence
      else if (state === 'text') {
        if (code === 0x1b) state = 'escape';
        else if (code === 0x9b) state = 'csi';
        else if (code === 0x90 || (code >= 0x9d && code <= 0x9f)) state = 'string';
        else if (c === '\n' || c === '\r') text += '\n';
        else if (c === '\t') text += ' ';
        else if (code >= 0x20 && code !== 0x7f && !(code >= 0x80 && code < 0xa0)) text += c;
      } else if (state === 'escape') {
        if (c === '[') state = 'csi';
        else if (']PX^_'.includes(c)) state = 'string';
        else if (code < 0x20 || code > 0x2f) state = code === 0x1b ? 'escape' : 'text';
      } else if (state === 'csi') {
        if (code === 0x1b) state = 'escape';
        else if (code >= 0x40 && code <= 0x7e) state = 'text';
      } else if (state === 'string') {
        if (code === 0x07 || code === 0x9c) state = 'text';
        else if (code === 0x1b) state = 'string-escape';
      } else state = c === '\\' ? 'text' : code === 0x1b ? 'string-escape' : 'string';
    }
    text = text.replace(/\n{2,}/g, '\n');
    if (text !== '') yield { at: event.at, text };
  }
}

/** What was typed, with names for what cannot be seen: Enter as ⏎, Ctrl-C as ^C. */
export function visible(text: string): string {
  return text
    .replace(/\x1b(\[[\d;]*[ -/]*[@-~]|O[@-~])/g, (sequence) => `‹${sequence.slice(1)}›`)
    .replace(/[\p{Cf}\p{Co}\p{Cs}]/gu, '·')
    .replace(/[\x00-\x1f\x7f]/g, (c) => {
      if (c === '\r' || c === '\n') return '⏎';
      if (c === '\t') return '⇥';
      if (c === '\x7f' || c === '\b') return '⌫';
      return `^${String.fromCharCode(c.charCodeAt(0) + 64)}`;
    });
}
