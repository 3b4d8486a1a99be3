// What a person has chosen for this browser. Nothing about any session.

const KEY = 'drawbridge';
const SIZES = { min: 8, default: 14, max: 32 } as const;

export interface Settings {
  fontSize: number;
  screenReader: boolean;
}

function clamp(size: number): number {
  return Math.min(SIZES.max, Math.max(SIZES.min, Math.round(size)));
}

export function load(): Settings {
  const settings: Settings = { fontSize: SIZES.default, screenReader: false };
  try {
    const stored = JSON.parse(window.localStorage.getItem(KEY) ?? '{}') as Partial<Settings>;
    if (typeof stored.fontSize === 'number' && Number.isFinite(stored.fontSize)) settings.fontSize = clamp(stored.fontSize);
    if (typeof stored.screenReader === 'boolean') settings.screenReader = stored.screenReader;
  } catch {
    // Storage is off, or holds something else: the defaults do.
  }
  return settings;
}

export function save(settings: Settings): void {
  try {
    window.localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Storage is off: it lasts as long as the page.
  }
}

/** Another font size: `by` pixels more, or the default. */
export function zoomed(fontSize: number, by: number | 'default'): number {
  return by === 'default' ? SIZES.default : clamp(fontSize + by);
}
