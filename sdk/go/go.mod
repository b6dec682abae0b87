module microdapr.io/plugin

go 1.24
