package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
)

// logFlags are the flags of commands that log.
type logFlags struct{ format, level string }

func addLogFlags(cmd *cobra.Command) *logFlags {
	f := &logFlags{}
	cmd.Flags().StringVar(&f.format, "log-format", "text", "format of the log on standard error: text or json")
	cmd.Flags().StringVar(&f.level, "log-level", "info", "lowest level that is logged: debug, info, warn or error")
	return f
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(f.level)]
	if !ok {
		return nil, usageErrorf("--log-level %q: debug, info, warn and error are allowed", f.level)
	}
	opts.Level = level
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usageErrorf("--log-format %q: text and json are allowed", f.format)
}
