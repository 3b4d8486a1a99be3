// Text from elsewhere, made fit to be shown. Pure.

/** Without control and formatting characters, which could hide or turn around what follows them; at most `max` characters. */
export function plain(text: unknown, max = 1024): string {
  if (typeof text !== 'string') return '';
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu, ' ').trim();
  return clean.length > max ? `${clean.slice(0, max)}…` : clean;
}

/** `90` as `1:30`, `3600` as `1:00:00`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (n: number): string => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** `90` as `2 minutes`: for people who hear it, to whom seconds would be read out one by one. */
export function spoken(seconds: number): string {
  const [n, unit] = seconds < 60 ? [Math.ceil(seconds), 'second'] : seconds < 7200 ? [Math.round(seconds / 60), 'minute'] : [Math.round(seconds / 3600), 'hour'];
  return `${n} ${unit}${n === 1 ? '' : 's'}`;
}
