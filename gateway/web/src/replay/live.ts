// Follows a recording while it is made: everything until now, and then what happens.

import type { Link } from '../link.ts';
import { bearer } from '../link.ts';
import { plain } from '../text.ts';
import { LIVE, liveAddress } from './api.ts';

/** Bytes that may wait to be shown: one who cannot keep up is told so, instead of falling behind without end. */
const MAX_PILE = 64 * 1024 * 1024;

export interface Audience {
  opened(): void;
  /** Whole lines. Resolves when more is welcome. */
  lines(bytes: Uint8Array): Promise<void>;
  /** `ended`: the session did; else why it cannot be followed. Told once, after all lines. */
  closed(end: string): void;
}

export interface Following {
  close(): void;
}

export function follow(link: Link, id: string, audience: Audience): Following {
  const socket = new WebSocket(liveAddress(link, id), [bearer(link), LIVE]);
  socket.binaryType = 'arraybuffer';
  const pile: Uint8Array[] = [];
  let waiting = 0;
  let working = false;
  let gone = false;
  let opened = false;
  let end: string | null = null;
  const work = async (): Promise<void> => {
    if (working) return;
    working = true;
    for (let next = pile.shift(); next !== undefined && !gone; next = pile.shift()) {
      waiting -= next.length;
      await audience.lines(next);
    }
    working = false;
    if (end !== null && !gone) {
      gone = true;
      audience.closed(end);
    }
  };
  socket.onopen = () => {
    opened = true;
    audience.opened();
  };
  socket.onmessage = ({ data }: MessageEvent<unknown>) => {
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data instanceof ArrayBuffer ? new Uint8Array(data) : null;
    if (bytes === null || end !== null) return;
    waiting += bytes.length;
    if (waiting > MAX_PILE) {
      end = 'There was more output than this browser could show in time.';
      socket.close();
    } else pile.push(bytes);
    void work();
  };
  socket.onclose = ({ code, reason }) => {
    end ??= code === 1000 ? 'ended' : plain(reason, 200) || (opened ? 'The connection to the gateway was lost.' : 'It cannot be followed any more; look at the list again.');
    void work();
  };
  return {
    close(): void {
      gone = true;
      socket.close();
    },
  };
}
