module highlander/cmd/highlander

go 1.26

require highlander v0.0.0

replace highlander => ../..
