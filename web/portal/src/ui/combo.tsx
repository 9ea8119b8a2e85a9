import type { ReactNode } from "react";
import { Button } from "react-aria-components/Button";
import { ComboBox } from "react-aria-components/ComboBox";
import { FieldError } from "react-aria-components/FieldError";
import { Input } from "react-aria-components/Input";
import { Label } from "react-aria-components/Label";
import { ListBox, ListBoxItem } from "react-aria-components/ListBox";
import { Popover } from "react-aria-components/Popover";
import { Text } from "react-aria-components/Text";
import { cx } from "./cx";
import { INPUT } from "./field";
import { ChevronDown } from "./icons";
import { POPOVER } from "./select";

export interface Suggestion {
  key: string;
  hint?: string;
}

export interface ComboProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  suggestions: readonly Suggestion[];
  placeholder?: string;
  description?: ReactNode;
  error?: string | null | undefined;
  mono?: boolean;
  autoFocus?: boolean;
}

/** A field that offers what is likely, and takes anything. */
export function Combo({ label, value, onChange, suggestions, placeholder, description, error, mono, autoFocus }: ComboProps) {
  return (
    <ComboBox
      allowsCustomValue
      menuTrigger="input"
      inputValue={value}
      onInputChange={onChange}
      onChange={(key) => {
        if (key !== null) onChange(String(key));
      }}
      items={suggestions}
      isInvalid={error != null && error !== ""}
      validationBehavior="aria"
      allowsEmptyCollection={false}
      {...(autoFocus ? { autoFocus } : {})}
      className="flex min-w-0 flex-col gap-1.5"
    >
      <Label className="text-sm font-medium">{label}</Label>
      <div className="relative">
        <Input spellCheck={false} {...(placeholder !== undefined ? { placeholder } : {})} className={cx(INPUT, "h-9 pr-9", mono && "font-mono text-sm")} />
        <Button aria-label="Show suggestions" className="absolute inset-y-1 right-1 flex w-7 items-center justify-center rounded-sm text-muted data-hovered:bg-hover">
          <ChevronDown />
        </Button>
      </div>
      {description !== undefined && (error == null || error === "") ? (
        <Text slot="description" className="text-xs text-muted">
          {description}
        </Text>
      ) : null}
      <FieldError className="text-xs font-medium text-bad-text">{error}</FieldError>
      <Popover className={cx(POPOVER, "w-(--trigger-width)")}>
        <ListBox<Suggestion> className="max-h-72 overflow-auto p-1 outline-none">
          {(item) => (
            <ListBoxItem
              id={item.key}
              textValue={item.key}
              className="flex min-h-8 cursor-pointer items-center justify-between gap-4 rounded-sm px-2 py-1 text-sm outline-none data-focused:bg-hover"
            >
              <span className={cx("min-w-0 truncate", mono && "font-mono")}>{item.key}</span>
              {item.hint !== undefined ? <span className="shrink-0 text-xs text-muted">{item.hint}</span> : null}
            </ListBoxItem>
          )}
        </ListBox>
      </Popover>
    </ComboBox>
  );
}
