package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

func newQuery() *cobra.Command {
	config := mysql.NewConfig()
	config.Net = "tcp"
	config.Logger = &mysql.NopLogger{} // it would repeat the errors
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "query --address HOST:PORT SQL",
		Short: "Ask a running database",
		Long: `Query asks a running database, and prints the answer's rows, a line for each,
with tabs between the columns. The connection is not encrypted.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if config.Addr == "" {
				return cli.Usage(errors.New("--address is missing"), "")
			}
			return query(cmd.Context(), cmd.OutOrStdout(), config, args[0], wait)
		},
	}
	cmd.Flags().StringVar(&config.Addr, "address", "", "host and port of the database")
	cmd.Flags().StringVar(&config.User, "user", "root", "user of the database")
	cmd.Flags().StringVar(&config.Passwd, "password", "", "its password")
	cmd.Flags().StringVar(&config.DBName, "database", "", "database to use")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for a database that is still starting")
	return cmd
}

func query(ctx context.Context, w io.Writer, config *mysql.Config, statement string, wait time.Duration) error {
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return cli.Usage(err, "")
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	if err := await(ctx, db, wait); err != nil {
		return fmt.Errorf("connecting to %s: %w", config.Addr, err)
	}
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values, pointers := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = "NULL"
			if v.Valid {
				texts[i] = v.String
			}
		}
		if _, err := fmt.Fprintln(w, strings.Join(texts, "\t")); err != nil {
			return err
		}
	}
	return rows.Err()
}

// await tries to connect until the database answers, be it with a refusal.
func await(ctx context.Context, db *sql.DB, wait time.Duration) error {
	until := time.Now().Add(wait)
	for {
		// A port that is forwarded accepts before the database listens.
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := db.PingContext(attempt)
		cancel()
		refused, _ := errors.AsType[*mysql.MySQLError](err)
		if err == nil || refused != nil || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
