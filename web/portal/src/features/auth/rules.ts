export const MIN_PASSWORD = 8;

export function emailProblem(email: string): string | null {
  return /^\S+@\S+$/.test(email.trim()) ? null : "Enter an address like name@example.org.";
}
