// Colours and letters of every terminal on a page: dark or light, as the system prefers.

import type { ITheme } from '@xterm/xterm';

export const FONT = 'ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

const DARK: ITheme = {
  background: '#10151c', foreground: '#d7dee8', cursor: '#7cc4ff', cursorAccent: '#10151c', selectionBackground: '#2f5d8c',
  black: '#1b222c', red: '#ff7b72', green: '#5fd38a', yellow: '#e3b341', blue: '#6cb6ff', magenta: '#d2a8ff', cyan: '#56d4dd', white: '#c9d4e0',
  brightBlack: '#7d8b9c', brightRed: '#ffa198', brightGreen: '#8ae8ad', brightYellow: '#f2cc60', brightBlue: '#96ccff', brightMagenta: '#e2c5ff',
  brightCyan: '#8be9f0', brightWhite: '#ffffff',
};
const LIGHT: ITheme = {
  background: '#ffffff', foreground: '#1c2530', cursor: '#0b5cad', cursorAccent: '#ffffff', selectionBackground: '#b6d8fb',
  black: '#1c2530', red: '#b3261e', green: '#176b3a', yellow: '#7a5600', blue: '#0b5cad', magenta: '#7b3fa8', cyan: '#0b6a75', white: '#5b6876',
  brightBlack: '#66727f', brightRed: '#c9372e', brightGreen: '#1c7f46', brightYellow: '#8a6400', brightBlue: '#1a6fc9', brightMagenta: '#8e4fc0',
  brightCyan: '#0f7d89', brightWhite: '#3d4854',
};
export const MATCHES = {
  dark: { matchBackground: '#5a4a12', activeMatchBackground: '#b8860b', matchOverviewRuler: '#b8860b', activeMatchColorOverviewRuler: '#ffd866' },
  light: { matchBackground: '#fff0b3', activeMatchBackground: '#ffc94d', matchOverviewRuler: '#c99a00', activeMatchColorOverviewRuler: '#7a5600' },
};

/** Whether the system prefers dark, and when that changes. */
export const dark = window.matchMedia('(prefers-color-scheme: dark)');

/** The colours for now. */
export function theme(): ITheme {
  return dark.matches ? DARK : LIGHT;
}
