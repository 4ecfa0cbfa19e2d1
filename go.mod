module highlander

go 1.26
