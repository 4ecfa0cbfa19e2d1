package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newSchemaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the SQL that makes the tables, for PostgreSQL",
		Long: `Schema prints the SQL that makes the tables of a cluster in PostgreSQL. Highlander
runs it itself when they are missing: print it where highlander's user may not
create them, let somebody run it who may, and grant the user what docs/postgres.md
lists. It asks nothing of the server.`,
		Example: `  highlander schema --cluster postgres://db.internal/jobs | psql -h db.internal -U postgres jobs`,
		Args:    noArgs,
	}
	url := addClusterFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		at, err := url.parse()
		if err != nil {
			return err
		}
		e, ok := at.engine.(postgresEngine)
		if !ok {
			return usageErrorf("%s: only postgres:// has a schema; name the one to print, as in --cluster postgres://HOST/DATABASE", at.source)
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), e.schemaSQL())
		return err
	}
	return cmd
}
