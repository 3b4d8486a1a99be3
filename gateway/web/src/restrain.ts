// What output may not do to the page, the browser or the person. It comes from a stranger's container, live or from a recording.

import type { Terminal } from '@xterm/xterm';

/** Output is whatever the container prints; some of it would reach past the terminal. */
export function restrain(xterm: Terminal): void {
  const { parser } = xterm;
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
  bound('b', () => xterm.cols * xterm.rows); // a character
  for (const lines of ['L', 'M', 'S', 'T']) bound(lines, () => xterm.rows);
  for (const stops of ['I', 'Z']) bound(stops, () => xterm.cols);
}
