import { useState, type ReactNode, type Ref } from "react";
import { FieldError } from "react-aria-components/FieldError";
import { Input } from "react-aria-components/Input";
import { Label } from "react-aria-components/Label";
import { Text } from "react-aria-components/Text";
import { TextArea } from "react-aria-components/TextArea";
import { TextField, type TextFieldProps } from "react-aria-components/TextField";
import { Button } from "react-aria-components/Button";
import { cx } from "./cx";

export const INPUT =
  "w-full min-w-0 rounded border border-control bg-panel px-2.5 text-base text-fg placeholder:text-faint transition-colors duration-[120ms] data-hovered:border-[var(--slate-9)] data-focused:border-accent data-focused:outline-2 data-focused:outline-offset-0 data-focused:outline-accent-line data-invalid:border-bad data-disabled:bg-sunken data-disabled:text-faint";

export interface FieldProps extends Omit<TextFieldProps, "className" | "children"> {
  label: string;
  /** Spoken, not shown: where something beside it says the same. */
  hideLabel?: boolean;
  description?: ReactNode;
  /** Shown under the field and announced; marks the field invalid. */
  error?: string | null | undefined;
  placeholder?: string;
  mono?: boolean;
  rows?: number;
  /** Beside the label, for example a link. */
  aside?: ReactNode;
  inputRef?: Ref<HTMLInputElement>;
}

export function Field({ label, hideLabel, description, error, placeholder, mono, rows, aside, inputRef, type, ...props }: FieldProps) {
  const [shown, setShown] = useState(false);
  const isPassword = type === "password";
  const font = mono ? "font-mono text-sm" : "";
  return (
    <TextField
      {...props}
      type={isPassword && shown ? "text" : (type ?? "text")}
      isInvalid={error != null && error !== ""}
      className="flex min-w-0 flex-col gap-1.5"
      validationBehavior="aria"
    >
      <div className={hideLabel === true ? "sr-only" : "flex items-baseline justify-between gap-3"}>
        <Label className="text-sm font-medium">{label}</Label>
        {aside}
      </div>
      {rows === undefined ? (
        <div className="relative">
          <Input
            {...(inputRef ? { ref: inputRef } : {})}
            {...(placeholder !== undefined ? { placeholder } : {})}
            spellCheck={false}
            className={cx(INPUT, "h-9", font, isPassword && "pr-16")}
          />
          {isPassword ? (
            <Button
              className="absolute inset-y-1 right-1 rounded-sm px-2 text-xs font-medium text-muted data-hovered:bg-hover data-hovered:text-fg"
              aria-label={shown ? "Hide what is typed" : "Show what is typed"}
              onPress={() => {
                setShown((value) => !value);
              }}
            >
              {shown ? "Hide" : "Show"}
            </Button>
          ) : null}
        </div>
      ) : (
        <TextArea
          rows={rows}
          {...(placeholder !== undefined ? { placeholder } : {})}
          spellCheck={false}
          className={cx(INPUT, "resize-y py-2 break-all", font)}
        />
      )}
      {description !== undefined && (error == null || error === "") ? (
        <Text slot="description" className="text-xs text-muted">
          {description}
        </Text>
      ) : null}
      <FieldError className="text-xs font-medium text-bad-text">{error}</FieldError>
    </TextField>
  );
}
