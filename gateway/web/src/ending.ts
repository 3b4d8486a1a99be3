// What a person reads when a terminal has ended, from what the gateway said. Pure.

import type { Closed } from './socket.ts';

export interface Ending {
  /** How it looks: ended by itself, lost, or taken away. */
  readonly kind: 'exit' | 'lost' | 'over';
  readonly title: string;
  readonly text: string;
  /** `Exit code 3`; empty when there is none to tell. */
  readonly code: string;
  /** What the button says that opens another; `null`: there can be no other. */
  readonly again: string | null;
}

/** How it ended. `ended` is what the gateway says of the whole session, if that is over. */
export function ending(end: Closed, ended: string | null): Ending {
  const { status } = end;
  const code = status?.exitCode ?? null;
  if (status !== null && code !== null) {
    return {
      kind: 'exit',
      title: code === 0 ? 'The shell has ended' : 'The shell has ended with an error',
      text: ended ?? (code === 0 ? 'It ran to its end and reported success.' : signal(code)),
      code: `Exit code ${code}`,
      again: ended === null ? 'Open a new shell' : null,
    };
  }
  const said = sentence(status?.message ?? '');
  if (ended !== null || status?.reason === 'Forbidden') {
    return {
      kind: 'over',
      title: title(said, ended),
      text: 'The gateway cut the connection. What ran in this terminal may go on in the container if it ignores the end of its input.',
      code: 'No exit code: it was cut off',
      again: null,
    };
  }
  if (status === null) {
    return {
      kind: 'lost',
      title: end.opened ? 'The connection was lost' : 'No connection',
      text: end.gaveUp ?? 'The network or the gateway went away. What ran in this terminal may still run; reconnecting opens a new shell.',
      code: 'No exit code: it was cut off',
      again: 'Reconnect',
    };
  }
  return {
    kind: 'lost',
    title: status.reason === 'Timeout' ? 'The connection was ended' : 'The connection failed',
    text: said,
    code: 'No exit code: it was cut off',
    again: 'Reconnect',
  };
}

function title(said: string, ended: string | null): string {
  const text = said || sentence(ended ?? '');
  return text.replace(/\.$/, '') || 'The session has ended';
}

/** The gateway's words as a sentence. */
function sentence(message: string): string {
  const text = message.replace(/^drawbridge: /, '').trim();
  if (text === '') return '';
  const begun = text[0]!.toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** Shells report a signal as 128 and its number. */
function signal(code: number): string {
  const names: Record<number, string> = { 130: 'It was interrupted (SIGINT).', 137: 'It was killed (SIGKILL), or ran out of memory.', 143: 'It was terminated (SIGTERM).' };
  return names[code] ?? 'Its last command failed, or it was told to exit so.';
}
