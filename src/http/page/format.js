// Figures for people.

export function bits(perSecond) {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(perSecond >= 1e7 ? 1 : 2)} Mbit/s`;
  return `${Math.round(perSecond / 1e3)} kbit/s`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${Math.round(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return null;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(value) {
  return value === null || value === undefined ? null : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

export const hertz = (value) => `${value / 1000} kHz`;
export const seconds = (millis) => `${Number((millis / 1000).toFixed(1))} s`;

export function duration(total) {
  const whole = Math.max(0, Math.floor(total ?? 0));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}
