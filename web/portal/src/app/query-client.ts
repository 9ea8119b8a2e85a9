import { QueryClient } from "@tanstack/react-query";
import { shouldRetry } from "~/api/queries";

export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: { retry: shouldRetry, retryDelay: (count) => 400 * 2 ** count, staleTime: 10_000, gcTime: 30 * 60_000 },
      mutations: { retry: false },
    },
  });
}
