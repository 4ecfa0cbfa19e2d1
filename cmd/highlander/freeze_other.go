//go:build !unix

package main

import (
	"errors"
	"time"
)

// canFreeze says whether processes can be stopped here.
const canFreeze = false

func (f *fleet) freeze(*nodeProcess) (time.Duration, error) { return 0, errors.ErrUnsupported }
func (f *fleet) thaw(*nodeProcess) error                    { return errors.ErrUnsupported }

func killAtOnce([]int) error { return errors.ErrUnsupported }
