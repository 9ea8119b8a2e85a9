import type { ReactNode } from "react";
import { Button, IconButton } from "./button";
import { CrossIcon, PlusIcon } from "./icons";

/** Lines of a form that can be added and taken away. */
export function Rows<T>({
  label,
  items,
  empty,
  add,
  addReason,
  onChange,
  render,
}: {
  /** What one line is called, in lower case. */
  label: string;
  items: readonly T[];
  empty: T;
  add: string;
  addReason?: string | null | undefined;
  onChange: (items: T[]) => void;
  render: (item: T, change: (part: Partial<T>) => void, index: number) => ReactNode;
}) {
  return (
    <div role="group" aria-label={`List of ${label}`} className="flex flex-col gap-2.5">
      {items.map((item, index) => (
        <div key={index} className="flex items-start gap-2">
          <div className="flex min-w-0 flex-1 flex-wrap items-start gap-2">
            {render(
              item,
              (part) => {
                onChange(items.map((each, at) => (at === index ? { ...each, ...part } : each)));
              },
              index,
            )}
          </div>
          <IconButton
            label={`Remove ${label} ${index + 1}`}
            className="mt-[1.9rem]"
            onPress={() => {
              onChange(items.filter((_, at) => at !== index));
            }}
          >
            <CrossIcon width={12} height={12} />
          </IconButton>
        </div>
      ))}
      <div>
        <Button
          size="sm"
          disabledReason={addReason}
          onPress={() => {
            onChange([...items, empty]);
          }}
        >
          <PlusIcon width={14} height={14} /> {add}
        </Button>
      </div>
    </div>
  );
}
